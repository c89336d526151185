# RetinaNet on the CPU or, with a build argument, on NVIDIA GPUs; docs/docker.md has the run lines.
#   docker build -t retinanet .
#   docker build -t retinanet:gpu --build-arg TENSORFLOW="tensorflow[and-cuda]" .

# The newest Python that TensorFlow has wheels for; Debian 13's own Python is of the same version,
# so that docker/check.py can run these steps without that image.
FROM python:3.13-slim-trixie

# The first user of most Linux hosts is 1000, too. `docker run --user` may name any other:
# home and the mount points are open to all.
RUN useradd --uid 1000 --user-group --no-create-home --home-dir /home/retinanet retinanet \
    && install --directory --mode 1777 /home/retinanet

WORKDIR /app

# Before the code, so that editing that does not install TensorFlow again. Wheels alone: nothing is
# compiled, and no compiler is needed.
ARG TENSORFLOW=tensorflow
COPY requirements.txt ./
RUN pip install --no-cache-dir --only-binary=:all: -r requirements.txt "$TENSORFLOW"

# Readable by everyone, whatever the umask of who builds; owned by root, so not to be changed.
COPY . ./
RUN chmod --recursive a+rX . \
    && install --directory --mode 1777 datasets runs weights

# Any user's HOME, for ~/.keras, ~/.config/matplotlib and the like.
ENV HOME=/home/retinanet \
    RETINANET_CACHE=/app/weights/cache

USER 1000:1000
CMD ["python", "train.py"]
