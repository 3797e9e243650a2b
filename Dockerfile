# handclr and MediaPipe's model file, for processors or for NVIDIA's GPUs:
#   docker build -t handclr:cpu .
#   docker build -t handclr:cuda --build-arg TORCH=cuda .
#   docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/data" handclr:cpu predict clip.mp4 -o poses.csv

# Python 3.11 on Debian 12 is what the versions in constraints.txt were tested on.
ARG PYTHON=python:3.11-slim-bookworm
# cpu; cuda: the build that constraints.txt pins with its CUDA; or another folder of the index.
ARG TORCH=cpu
ARG TORCH_INDEX=https://download.pytorch.org/whl

FROM ${PYTHON} AS build
ARG TORCH
ARG TORCH_INDEX
# hnswlib comes as source. It is compiled for any processor, not only for that of this machine.
ENV HNSWLIB_NO_NATIVE=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN apt-get update \
 && apt-get install -y --no-install-recommends g++ \
 && rm -rf /var/lib/apt/lists/*
RUN python -m venv /opt/handclr
ENV PATH=/opt/handclr/bin:$PATH HANDCLR_CACHE=/opt/handclr/cache
WORKDIR /source
COPY constraints.txt ./
# Without its dependencies, so that an index that lacks this version is an error.
RUN case "$TORCH" in \
      cuda) ;; \
      cpu | cu[0-9]*) pip install --no-deps --constraint constraints.txt \
        --index-url "$TORCH_INDEX/$TORCH" torch torchvision ;; \
      *) echo "TORCH=$TORCH: not cpu, cuda or such as cu130" >&2; exit 2 ;; \
    esac
COPY pyproject.toml README.md LICENSE ./
COPY completions completions
COPY man man
COPY handclr_cli handclr_cli
RUN pip install --constraint constraints.txt '.[onnx]' \
 && python -m handclr_cli.footage.model_file

FROM ${PYTHON}
ARG TORCH
# OpenCV's Qt is linked to libGL and GLib, MediaPipe to EGL and GLES; torch compiles with gcc on a GPU.
RUN apt-get update \
 && apt-get install -y --no-install-recommends libegl1 libgl1 libgles2 libglib2.0-0 \
 && if [ "$TORCH" != cpu ]; then apt-get install -y --no-install-recommends gcc libc6-dev; fi \
 && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/handclr /opt/handclr
# Caches lie where every user may write, since --user may name one without a home.
ENV PATH=/opt/handclr/bin:$PATH \
    HANDCLR_CACHE=/opt/handclr/cache \
    XDG_CACHE_HOME=/tmp/cache \
    MPLCONFIGDIR=/tmp/cache/matplotlib \
    NUMBA_CACHE_DIR=/tmp/cache/numba \
    TORCHINDUCTOR_CACHE_DIR=/tmp/cache/inductor \
    TRITON_CACHE_DIR=/tmp/cache/triton
LABEL org.opencontainers.image.source=https://github.com/handclr/handclr \
      org.opencontainers.image.licenses=Apache-2.0
RUN useradd --create-home handclr
USER handclr
WORKDIR /data
ENTRYPOINT ["handclr"]
CMD ["--help"]
