"""A real Prometheus (Debian's) that scrapes a broker, on a free loopback port, stopped by its process id."""

import json
import os
import re
import select
import subprocess
import time
import urllib.parse
import urllib.request

SECONDS_MAX = 60
CONFIG = """
global: {{ scrape_interval: 200ms, scrape_timeout: 200ms }}
scrape_configs: [{{ job_name: lakebed, static_configs: [{{ targets: ["{target}"] }}] }}]
"""


class Prometheus:
    """Scrapes `target` five times a second. Use as a context manager."""

    def __init__(self, target, directory):
        directory.mkdir()
        (directory / "prometheus.yml").write_text(CONFIG.format(target=target))
        command = ["prometheus", f"--config.file={directory}/prometheus.yml", f"--storage.tsdb.path={directory}/data",
                   "--web.listen-address=127.0.0.1:0"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, bufsize=0)
        self.told = b""

    def __enter__(self):
        deadline = time.monotonic() + SECONDS_MAX
        while not (listening := re.search(rb'"Listening on" address=(\S+)\n', self.told)):
            ready, _, _ = select.select([self.process.stderr], [], [], max(deadline - time.monotonic(), 0))
            piece = os.read(self.process.stderr.fileno(), 65536) if ready else b""
            assert piece, self.told.decode()
            self.told += piece
        self.address = listening[1].decode()
        # What it tells later must not fill the pipe.
        self.drain = subprocess.Popen(["cat"], stdin=self.process.stderr, stdout=subprocess.DEVNULL)
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stderr.close()
        if hasattr(self, "drain"):
            self.drain.wait()

    def get(self, path, **parameters):
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"http://{self.address}/api/v1/{path}?{query}", timeout=SECONDS_MAX) as answer:
            return json.load(answer)["data"]

    def query(self, expression):
        """What an expression comes to now, as {labels: number}; labels without the name, the job and the instance."""
        found = {}
        for one in self.get("query", query=expression)["result"]:
            labels = {name: value for name, value in one["metric"].items() if name not in ("__name__", "job", "instance")}
            found[tuple(sorted(labels.items()))] = float(one["value"][1])
        return found

    def wait_for(self, expression, expected):
        """Waits until an expression comes to `expected`, as `query` gives it, or as one number without labels."""
        expected = expected if isinstance(expected, dict) else {(): expected}
        deadline = time.monotonic() + SECONDS_MAX
        while (found := self.query(expression)) != expected:
            assert time.monotonic() < deadline, f"{expression} is {found}, not {expected}"
            time.sleep(0.05)
