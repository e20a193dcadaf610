# Serves a run on the CPU:
#   docker build -t visionadapt .
#   docker run --rm --read-only -p 127.0.0.1:8000:8000 -v "$PWD/runs/first:/model:ro" visionadapt
# The run must be a bundle (visionadapt export --format bundle), unless its backbone is one whose weights pip installs.
FROM python:3.12-slim

WORKDIR /src
COPY constraints.txt ./
# CPU wheels: a tenth of the size of those for GPUs
RUN pip install --no-cache-dir -c constraints.txt --index-url https://download.pytorch.org/whl/cpu torch torchvision
COPY pyproject.toml README.md LICENSE ./
COPY visionadapt ./visionadapt
RUN pip install --no-cache-dir -c constraints.txt '.[serve,heif]'

USER nobody
ENV HOME=/tmp PYTHONUNBUFFERED=1
WORKDIR /
EXPOSE 8000
HEALTHCHECK --start-period=60s CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/health', timeout=5)"]
ENTRYPOINT ["python", "-m", "visionadapt.serve", "--host", "0.0.0.0", "--port", "8000"]
CMD ["/model"]
