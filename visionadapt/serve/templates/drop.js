// Send dropped, pasted or chosen images to the server, and show a card with the answer to each.
const drop = document.getElementById("drop");
const input = document.getElementById("files");
const run = document.getElementById("run");
const state = document.getElementById("state");
const list = document.getElementById("answers");
const MOST_AT_ONCE = 4;
const waiting = [];
let working = 0;

function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function picture(source, text) {
  const image = element("img");
  image.alt = text;
  image.addEventListener("error", () => image.replaceWith(element("p", "no preview", "missing")));
  image.src = source;
  return image;
}

function percent(share) {
  return `${(100 * share).toFixed(1)} %`;
}

function shown(answer, address) {
  const card = element("li");
  const pair = element("div", undefined, "pair");
  pair.append(picture(address, answer.file || "image"));
  if (answer.heat_map) pair.append(picture(answer.heat_map, `regions that support ${answer.label}`));
  card.append(pair);
  if (answer.problem) {
    card.append(element("p", answer.problem, "bad"));
  } else {
    const title = element("h2", answer.label);
    title.append(` ${percent(answer.probability)}`);
    card.append(title);
    if (answer.abstain) card.append(element("p", "Abstains: too uncertain. Have a person look at it.", "bad"));
    if (answer.odd) {
      const times = answer.distance.toFixed(1);
      card.append(element("p", `Odd: unlike the training images (distance ${times}).`, "bad"));
    }
    for (const { label, probability } of answer.top) {
      const bar = element("progress");
      bar.max = 1;
      bar.value = probability;
      bar.setAttribute("aria-label", label);
      const row = element("p");
      row.append(element("span", `${label} ${percent(probability)}`), bar);
      card.append(row);
    }
  }
  const names = [answer.file, answer.run].filter(Boolean).join(" · ");
  const file = element("p", undefined, "file");
  file.append(element("bdi", names));
  card.append(file);
  return card;
}

async function ask(file) {
  const form = new FormData();
  form.append("file", file, file.name);
  const query = new URLSearchParams({ heat_map: "true", top: "5" });
  if (run && run.value) query.append("run", run.value);
  try {
    const response = await fetch(`predict?${query}`, { method: "POST", body: form });
    const answer = await response.json();
    return answer.predictions || [{ file: file.name, problem: answer.problem }];
  } catch (error) {
    return [{ file: file.name, problem: `no answer from the server (${error.message})` }];
  }
}

async function next() {
  if (working >= MOST_AT_ONCE || waiting.length === 0) return;
  working += 1;
  const file = waiting.shift();
  const address = URL.createObjectURL(file);
  const cards = (await ask(file)).map((answer) => shown(answer, address));
  list.prepend(...cards);
  working -= 1;
  const left = working + waiting.length;
  state.textContent = left ? `${left} waiting` : `${list.children.length} answers`;
  next();
}

function send(files) {
  waiting.push(...files);
  state.textContent = `${working + waiting.length} waiting`;
  for (let count = 0; count < MOST_AT_ONCE; count += 1) next();
}

input.addEventListener("change", () => {
  send([...input.files]);
  input.value = "";
});
for (const name of ["dragenter", "dragover"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
}
document.addEventListener("dragleave", () => drop.classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  send([...event.dataTransfer.files]);
});
document.addEventListener("paste", (event) => send([...event.clipboardData.files]));
