# syntax=docker/dockerfile:1
FROM python:3.11-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE THIRD_PARTY_NOTICES.md ./
COPY src ./src
RUN python -m venv /opt/facewise \
 && /opt/facewise/bin/pip install --no-cache-dir '.[server,heif]'

FROM python:3.11-slim
COPY --from=build /opt/facewise /opt/facewise
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin facewise
ENV PATH=/opt/facewise/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    MALLOC_ARENA_MAX=2 \
    FACEWISE_HOST=0.0.0.0 \
    FACEWISE_PORT=8000
USER 10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
  CMD ["python", "-c", "import os, urllib.request as u; p = os.environ.get('FACEWISE_PORT', ''); u.urlopen('http://127.0.0.1:' + (p if p.isdigit() else '8000') + '/healthz', timeout=2)"]
CMD ["facewise", "serve", "--no-open"]
