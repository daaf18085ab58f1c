# One image for a machine without a GPU and for every pod of a cluster:
#
#   docker build -t mgrpo .                                # CPU
#   docker build -t mgrpo:gpu --build-arg EXTRA=gpu .      # CUDA; can be built without a GPU
#   docker run --rm --shm-size 4g mgrpo mgrpo train quickstart
#
# CUDA's libraries come with vLLM's and torch's packages; the driver comes from the node.
FROM ubuntu:24.04

# wget: KubeRay's probes. The compilers and libnuma: see docs/install.md.
RUN apt-get update -qq \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        build-essential ca-certificates libnuma1 make python3-dev python3-venv wget \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/mgrpo
# What we depend on is a layer of its own, several GB, which stays the same when only our code changes.
COPY Makefile pyproject.toml README.md LICENSE ./
COPY requirements requirements
COPY scripts scripts
COPY mgrpo/__init__.py mgrpo/rooms.py mgrpo/version.py mgrpo/
ARG EXTRA=cpu
RUN mkdir actors learner rewards cluster \
    && PIP_NO_CACHE_DIR=1 make setup EXTRA="$EXTRA" GOAL=image
COPY mgrpo mgrpo
COPY actors actors
COPY learner learner
COPY rewards rewards
COPY cluster cluster

# The program is found wherever a job's current folder is. Google's nodes put the driver's libraries
# under /usr/local/nvidia; elsewhere those folders are not there, and the variables tell NVIDIA's runtime
# what to bring in.
ENV PATH=/opt/mgrpo/.venv/bin:$PATH:/usr/local/nvidia/bin PYTHONPATH=/opt/mgrpo \
    LD_LIBRARY_PATH=/usr/local/nvidia/lib64:/usr/local/nvidia/lib \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
CMD ["mgrpo", "--help"]
