"""Run folders that a stranger has edited, and every command on them: `python -m tests.whole.edited_runs DIR SEED…`.

Each case changes one to four values of any file of a run (texts, paths, numbers, types, depth), and makes its digest
anew or removes it, as an attacker would. The commands then run in this process, while Python's own audit events tell
what they import, open, connect to and start.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import resource
import shutil
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

SECRET = "canary-5d0a91"
COMMANDS = ("resume", "finish", "load", "predict", "evaluate", "report", "runs", "toml")
_JSON = ("config.json", "plan.json", "classes.json", "preprocess.json", "calibration.json", "summary.json")
_FILES = (*_JSON, "metrics.jsonl", "validation/evaluation.json", "model.safetensors", "checkpoint.safetensors")
_SAFETENSORS = ("golden.safetensors", "calibration.safetensors")
_SECONDS = 60
_MOST_MEMORY = 4 * 2**30


def hostile_values(outside: Path) -> list[Any]:
    """Texts that would run code, contact servers and write files if they were believed, and odd values."""
    deep: Any = "x"
    for _ in range(400):
        deep = [deep]
    return [
        *("evil_module:L", f"{outside.parent}/evil_module.py:Shop(data)", 'folder(os:system("harm"))', "os:system"),
        *('csv(a.csv, image=x, drop=[os:system("harm")])', 'bottleneck(rank=os:system("harm"))', "builtins:exec(x)"),
        "api(http://127.0.0.1:9/x, image=url, token=SECRET, private=True)",
        *(f"sql(sqlite:///{outside}/a.db, table=a, image=b)", "sql(env:SECRET, table=a, image=b)", "env:SECRET"),
        *("hf-hub:evil/model", "hf_hub:evil/model", f"local-dir:{outside}", "https://127.0.0.1:9/w.safetensors"),
        *(str(outside), str(outside / "x.json"), "../../outside/x", "~/x", "/dev/zero", "/dev/stdin", "/etc/passwd"),
        *("\x1b[31mred\n", "<script>alert(1)</script>", "{{ 7 * 7 }}", "\0", "\ud800", "a" * 20_000, "", "nan", "None"),
        *(-1, 0, 1, 3, 10**6, 10**12, 2**63, 10**400, 1e308, -1e308, 1e-320, 0.5),
        *(float("nan"), float("inf"), True, False, None, [], {}, [[]], {"a": 1}, deep),
    ]


def leaves(value: Any) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every value below a JSON value, containers too."""
    waiting: list[tuple[tuple[Any, ...], Any]] = [((), value)]
    while waiting:
        path, item = waiting.pop()
        if path:
            yield path
        items = item.items() if isinstance(item, dict) else enumerate(item) if isinstance(item, list) else ()
        waiting += [((*path, name), each) for name, each in reversed(list(items))]


def _copied(value: Any) -> Any:
    return json.loads(json.dumps(value))


def edited(value: Any, draw: random.Random, values: list[Any]) -> Any:
    """Change one value of a JSON value: replace, remove, rename, or add beside it."""
    paths = list(leaves(value))
    if not paths or draw.random() < 0.03:
        return _copied(draw.choice(values))
    *parents, last = draw.choice(paths)
    place = value
    for name in parents:
        place = place[name]
    kind = draw.random()
    if kind < 0.75:
        place[last] = _copied(draw.choice(values))
    elif kind < 0.9:
        del place[last]
    elif isinstance(place, dict):
        place[str(draw.choice(values))[:100]] = place.pop(last)
    else:
        place.append(_copied(draw.choice(values)))
    return value


def edit(run: Path, draw: random.Random, values: list[Any]) -> list[str]:
    """Edit some files of a run; return their names."""
    names = [draw.choice(_FILES) for _ in range(draw.choice((1, 1, 2, 4)))]
    for name in names:
        path = run / name
        if not path.exists():
            continue
        if name in _SAFETENSORS or path.suffix == ".safetensors":
            _edit_tensors(path, draw, values)
            continue
        lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
        place = draw.randrange(len(lines))
        with contextlib.suppress(ValueError):  # it is damaged by an edit before
            value = json.loads(lines[place])
            if isinstance(value, dict):
                value.pop("digest", None)
            lines[place] = json.dumps(edited(value, draw, values))
        path.write_text("\n".join(lines), encoding="utf-8", errors="surrogatepass")
    return names


def _edit_tensors(path: Path, draw: random.Random, values: list[Any]) -> None:
    from visionadapt.errors import RunError
    from visionadapt.runs.tensors import read_tensors, write_tensors

    with contextlib.suppress(RunError, ValueError, TypeError):
        tensors, facts = read_tensors(path)
        if draw.random() < 0.3 and tensors:
            name = draw.choice(sorted(tensors))
            tensor = tensors[name]
            changes = [tensor[:1] if tensor.ndim else tensor, tensor.double(), tensor.new_zeros((2, 2)), tensor * 1e30]
            tensors[name] = draw.choice(changes).contiguous()
            if draw.random() < 0.3:
                del tensors[name]
        else:
            facts = edited(facts, draw, values)
        if isinstance(facts, dict):
            write_tensors(path, tensors, facts)


class Watch:
    """Notes what this process does that no run folder may cause, while it is `on`."""

    def __init__(self, *allowed: Path) -> None:
        self.allowed = [str(folder) for folder in allowed]
        self.on = False
        self.seen: list[str] = []
        sys.addaudithook(self._hook)

    def _hook(self, event: str, args: tuple[Any, ...]) -> None:
        if not self.on:
            return
        harmful = event in {"os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "socket.connect"}
        harmful = harmful or event in {"socket.getaddrinfo", "sqlite3.connect", "ctypes.dlopen/new"}
        harmful = harmful or (event == "import" and str(args[0]).startswith("evil"))
        if event == "open" and isinstance(args[0], str | bytes):
            writes = isinstance(args[1], str) and set(args[1]) & set("wax+")
            writes = writes or (isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
            harmful = bool(writes) and not self._inside(args[0])
        elif event in {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "shutil.rmtree"}:
            harmful = not self._inside(args[0])
        if harmful:
            self.seen.append(f"{event} {args[:2]!r:.300}")

    def _inside(self, path: Any) -> bool:
        if isinstance(path, int):
            return True
        real = str(Path(os.fsdecode(path)).resolve())
        return real.startswith(tuple(self.allowed)) or real in {os.devnull} or "__pycache__" in real


def run_case(seed: int, made: Path, work: Path, watch: Watch, command: Callable[..., int]) -> dict[str, Any]:
    """Edit a copy of the run of `made` and run every command on it; return what went wrong."""
    shutil.rmtree(work, ignore_errors=True)
    run = Path(shutil.copytree(made / "run", work / "run"))
    draw = random.Random(seed)
    names = edit(run, draw, hostile_values(made / "outside"))
    found: dict[str, Any] = {"seed": seed, "files": names, "harm": [], "tracebacks": [], "codes": {}}
    for name in COMMANDS:
        once = work / "once"
        shutil.rmtree(once, ignore_errors=True)
        shutil.copytree(run, once)
        if name in {"resume", "finish"}:
            (once / "summary.json").unlink(missing_ok=True)
        said = io.StringIO()
        watch.on = True
        signal.alarm(_SECONDS)
        try:
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                found["codes"][name] = _run(name, once, made / "data", command)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is no line of ours
            found["tracebacks"].append(f"{name}: {_where(error)}")
        finally:
            signal.alarm(0)
            watch.on = False
        if SECRET in said.getvalue() or "Traceback" in said.getvalue():
            found["tracebacks"].append(f"{name}: {said.getvalue()[-1500:]}")
        found["harm"] += [f"{name}: {what}" for what in watch.seen]
        watch.seen.clear()
    if any((made / "outside").iterdir()):
        found["harm"].append("wrote a file outside")
    return found


def _run(name: str, run: Path, data: Path, command: Callable[..., int]) -> int:
    from visionadapt.errors import VisionAdaptError
    from visionadapt.runs.saved import load

    words = {
        "resume": ("train", "--resume", run),
        "finish": ("finish", run),
        "predict": ("predict", run, data, "--out", run / "table.csv", "--workers", "0"),
        "evaluate": ("evaluate", run, "--data", data, "--workers", "0"),
        "report": ("report", run),
        "runs": ("runs", run.parent),
        "toml": ("runs", run, "--toml"),
    }
    if name != "load":
        return command([str(word) for word in words[name]])
    try:
        load(run)
    except VisionAdaptError as error:
        assert "\n" not in str(error)
        return 2
    return 0


def _where(error: BaseException) -> str:
    import traceback

    frames = traceback.extract_tb(error.__traceback__)
    ours = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames if "visionadapt" in frame.filename]
    return f"{type(error).__name__}: {str(error)[:200]} at {' < '.join(reversed(ours[-5:]))}"


def make(folder: Path) -> None:
    """Train the run that is edited."""
    import visionadapt as va

    from ..conftest import SMALL_BACKBONE, tinted

    (folder / "outside").mkdir(parents=True)
    (folder / "evil_module.py").write_text("import sys\nsys.harm = True\nL = Shop = list\n")
    for label, name in enumerate(("blood", "grass")):
        (folder / "data" / name).mkdir(parents=True)
        for number in range(8):
            tinted((40, 40), label, number).save(folder / "data" / name / f"{number}.png")
    settings: dict[str, Any] = {"backbone": SMALL_BACKBONE, "weights": "none", "image_size": 32, "workers": 0}
    adapter, cache = "bottleneck(rank=2, blocks=last:1)", str(folder / "cache")
    va.train(str(folder / "data"), out=folder / "run", epochs=2, adapter=adapter, batch_size=4, cache=cache, **settings)


def main(folder: Path, seeds: Iterable[int]) -> int:
    """Run the cases with some seeds, print each as a line of JSON, and return how many went wrong."""
    from matplotlib import font_manager  # noqa: F401 - it makes its list of fonts at its first import

    from visionadapt.__main__ import app
    from visionadapt.commands import shell

    os.environ.update({"SECRET": SECRET, "VISIONADAPT_CACHE": str(folder / "cache"), "HOME": str(folder / "home")})
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    signal.signal(signal.SIGALRM, _too_long)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + _MOST_MEMORY, size + _MOST_MEMORY))
    watch = Watch(folder / "work", folder / "cache")
    wrong = 0
    for seed in seeds:
        found = run_case(seed, folder, folder / "work", watch, lambda words: shell.run(app, words))
        wrong += bool(found["harm"] or found["tracebacks"])
        print(json.dumps(found), flush=True)  # noqa: T201
    return wrong + hasattr(sys, "harm")


def _too_long(number: int, frame: Any) -> None:
    raise TimeoutError(f"more than {_SECONDS} s")


if __name__ == "__main__":
    place = Path(sys.argv[1]).resolve()
    if not place.exists():
        make(place)
    sys.exit(main(place, map(int, sys.argv[2:])))
