# docker build -t codistill . && docker run --rm -v "$PWD/runs:/runs" codistill demo --out /runs/demo
# Without a GPU. With one: --build-arg INDEX= (PyPI's PyTorch brings CUDA), and docker run --gpus all
FROM python:3.11-slim
ARG INDEX="--index-url https://download.pytorch.org/whl/cpu"
WORKDIR /codistill
COPY constraints.txt .
RUN pip install --no-cache-dir -c constraints.txt ${INDEX} torch==2.13.0 torchvision
COPY pyproject.toml README.md LICENSE ./
COPY src src
COPY recipes recipes
RUN pip install --no-cache-dir -c constraints.txt ".[all]"
ENTRYPOINT ["codistill"]
