# docker build --build-arg TORCH=cpu -t densecli .       (cu126, cu128, ...: for an NVIDIA GPU)
FROM python:3.12-slim

ARG TORCH=cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1

RUN pip install "torch>=2.6" "torchvision>=0.21" --index-url "https://download.pytorch.org/whl/${TORCH}"

COPY . /src
RUN pip install "/src[s3]" && rm -rf /src \
    && useradd --create-home --uid 1000 densecli && mkdir /work && chown densecli /work

USER 1000
WORKDIR /work
ENTRYPOINT ["densecli"]
CMD ["--help"]
