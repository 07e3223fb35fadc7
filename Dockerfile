# Two images from one file:
#   docker build --target control --build-arg COMMIT=$(git rev-parse HEAD) -t headrace-control:TAG .
#   docker build --target gpu --build-arg COMMIT=$(git rev-parse HEAD) -t headrace-gpu:TAG .
# TAG is the commit too, or its first characters: what launches a stage compares it with the checkout.
#
# Debian's own Python 3.11 on Debian's slim image is what the project is tested on. No CUDA image is
# underneath: torch's wheels bring the CUDA libraries they were built with, and the driver's come from
# the node. Give BASE with a digest (debian:bookworm-slim@sha256:...) where builds must be repeatable.
ARG BASE=docker.io/library/debian:bookworm-slim

FROM ${BASE} AS base
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates python3 \
    && rm -rf /var/lib/apt/lists/*
RUN groupadd --gid 1000 headrace \
    && useradd --uid 1000 --gid 1000 --home-dir /tmp --no-create-home --shell /usr/sbin/nologin headrace
ENV PATH=/opt/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONPATH=/app \
    PYTHONSAFEPATH=1 \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1

# The project as its commit has it, whatever else lies in the checkout: nothing uncommitted, nothing
# ignored. Without COMMIT, or with one that the checkout does not have, the build ends here.
FROM base AS source
RUN apt-get update \
    && apt-get install -y --no-install-recommends git \
    && rm -rf /var/lib/apt/lists/*
COPY .git /src/.git
ARG COMMIT
RUN git clone --quiet --no-local --no-checkout /src /app \
    && git -C /app checkout --quiet -B main "${COMMIT:?give the commit: --build-arg COMMIT=\$(git rev-parse HEAD)}" \
    && test "$(git -C /app rev-parse HEAD)" = "${COMMIT}" \
    && git -C /app remote remove origin

FROM base AS installer
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*
ARG UV_VERSION=0.13.9
RUN python3 -m venv /opt/uv \
    && /opt/uv/bin/pip install --no-cache-dir "uv==${UV_VERSION}" \
    && /opt/uv/bin/uv venv --python /usr/bin/python3 /opt/venv

FROM installer AS control-packages
COPY requirements.lock /tmp/
RUN /opt/uv/bin/uv pip install --python /opt/venv/bin/python --no-cache --compile-bytecode \
      --require-hashes --no-deps -r /tmp/requirements.lock

FROM installer AS gpu-packages
COPY requirements-gpu.lock /tmp/
RUN /opt/uv/bin/uv pip install --python /opt/venv/bin/python --no-cache --compile-bytecode \
      --require-hashes --no-deps -r /tmp/requirements-gpu.lock
# DeepSpeed compiles its CPU communication at first use, into a folder that it writes to; a pod has no
# such folder in its image. So it is built once more, now that torch is there to build against, with
# that operator inside. It is made for every processor: without -march=native.
RUN sed -n '/^deepspeed==/,/# via/p' /tmp/requirements-gpu.lock > /tmp/deepspeed.lock \
    && DS_BUILD_SHM_COMM=1 DS_ACCELERATOR=cpu \
       /opt/uv/bin/uv pip install --python /opt/venv/bin/python --no-cache --compile-bytecode \
      --require-hashes --no-deps --reinstall --no-build-isolation -r /tmp/deepspeed.lock \
    && DS_ACCELERATOR=cpu /opt/venv/bin/python -c "from deepspeed.git_version_info import installed_ops; assert installed_ops['deepspeed_shm_comm']"

# What starts stages and shows them: Prefect, MLflow, DVC, the flows, the node agent and controller.
FROM base AS control
RUN apt-get update \
    && apt-get install -y --no-install-recommends git \
    && rm -rf /var/lib/apt/lists/*
# The flow server clones /app, which belongs to another user: git asks for leave by either name.
RUN git config --system --add safe.directory /app \
    && git config --system --add safe.directory /app/.git \
    && printf '#!/bin/sh\nexec python -m tasks.cli "$@"\n' > /usr/local/bin/headrace \
    && chmod 0755 /usr/local/bin/headrace
COPY --from=control-packages /opt/venv /opt/venv
COPY --from=source /app /app
ARG COMMIT
LABEL org.opencontainers.image.title="headrace control" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision="${COMMIT}"
ENV HEADRACE_COMMIT=${COMMIT}
WORKDIR /app
USER 1000:1000
CMD ["python", "-m", "flows.deployments"]

# What a stage runs in. No Prefect, DVC, MLflow or Kubernetes: a stage has nothing to say to them. The
# compiler is for torch.compile, which translates kernels on the node.
FROM base AS gpu
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ python3-dev \
    && rm -rf /var/lib/apt/lists/*
COPY --from=gpu-packages /opt/venv /opt/venv
COPY --from=source /app/components /app/components
COPY --from=source /app/tasks /app/tasks
COPY --from=source /app/k8s /app/k8s
ARG COMMIT
LABEL org.opencontainers.image.title="headrace gpu" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision="${COMMIT}"
# The node's driver brings libcuda and NVML; how many GPUs is the scheduler's word alone.
ENV HEADRACE_COMMIT=${COMMIT} \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
WORKDIR /app
USER 1000:1000
CMD ["python", "-m", "tasks.container", "--help"]
