# The operator's image: Python, one virtual environment, nothing that compiles or installs.
#
#   docker build -t registry.example/imagewright:0.1.0 .
#
# BASE may be any image with Python 3.11 or later as python3; the first stage also needs its pip and venv.
# Without a network, give the wheels instead of the first stage:
#
#   docker build --build-context wheels=DIR --build-arg BASE=...
#
# where DIR holds the wheels of uv.lock's packages, of this project and of pip.
ARG BASE=docker.io/library/python:3.11-slim-bookworm

# Every wheel, at the version and with the hash that uv.lock says.
FROM ${BASE} AS fetch
ARG UV=0.13.9
ARG PIP=26.3
WORKDIR /src
# A pip.conf of your own, for a mirror or a certificate: --secret id=pip,src=pip.conf
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    python3 -m venv /opt/fetch \
    && /opt/fetch/bin/pip install --no-cache-dir "pip==${PIP}" "uv==${UV}" \
    && /opt/fetch/bin/pip download --no-cache-dir --no-deps --dest /wheels "pip==${PIP}"
COPY pyproject.toml uv.lock ./
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    /opt/fetch/bin/uv export --quiet --frozen --no-dev --no-emit-project \
        --format requirements-txt --output-file requirements.txt \
    && /opt/fetch/bin/pip wheel --no-cache-dir --require-hashes --requirement requirements.txt --wheel-dir /wheels
COPY README.md LICENSE ./
COPY operator operator
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    /opt/fetch/bin/pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM scratch AS wheels
COPY --from=fetch /wheels /

# pip runs from its wheel, so that neither it nor the wheels reach the last stage.
FROM ${BASE} AS install
RUN --mount=type=bind,from=wheels,target=/wheels \
    python3 -m venv --without-pip /opt/imagewright \
    && /opt/imagewright/bin/python "$(echo /wheels/pip-*.whl)/pip" install \
        --no-cache-dir --no-index --find-links=/wheels imagewright

FROM ${BASE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="imagewright" \
      org.opencontainers.image.description="A Kubernetes operator that makes container image builds a resource." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=install /opt/imagewright /opt/imagewright
# What fetches git sources for builders that do not; empty where BASE has them already, or nobody needs them.
ARG PACKAGES="git openssh-client"
RUN if [ -n "${PACKAGES}" ]; then apt-get update && apt-get install -y --no-install-recommends ${PACKAGES} \
    && rm -rf /var/lib/apt/lists/*; fi
ENV PATH=/opt/imagewright/bin:${PATH} \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
USER 65532:65532
WORKDIR /tmp
EXPOSE 8080
ENTRYPOINT ["python", "-m", "imagewright"]
CMD ["run", "--config", "/etc/imagewright/config.yaml"]
