"""The site behind nginx, as deploy/nginx has it: TLS, pages, workers' sockets and bytes."""

import ssl
import subprocess
import time

import httpx
import pytest
from websockets.sync.client import connect

from contracts.devchain import free_port
from contracts.devchain import test_key as rich
from dmlsite.supervisor import ROOT
from dmlworker import protocol

AROUND = """
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/dml.conf;
}}
"""


class Front:
    def __init__(self, folder, web):
        self.folder, self.plain, self.port = folder, free_port(), free_port()
        self.certificate = folder / "tls.crt"
        names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
        files = ["-keyout", folder / "tls.key", "-out", self.certificate]
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *names, *files]
        subprocess.run(command, check=True, capture_output=True)
        text = (ROOT / "deploy" / "nginx" / "dml.conf").read_text()
        for said, here in {
            "server web:8000": f"server 127.0.0.1:{web}",
            "listen 80;": f"listen 127.0.0.1:{self.plain};",
            "listen 443 ssl": f"listen 127.0.0.1:{self.port} ssl",
            "/etc/nginx/tls": str(folder),
        }.items():
            assert said in text
            text = text.replace(said, here)
        (folder / "dml.conf").write_text(text)
        (folder / "nginx.conf").write_text(AROUND.format(folder=folder))

    @property
    def command(self):
        return ["/usr/sbin/nginx", "-c", str(self.folder / "nginx.conf"), "-e", str(self.folder / "error.log")]

    @property
    def url(self):
        return f"https://localhost:{self.port}"

    @property
    def trust(self):
        return ssl.create_default_context(cafile=str(self.certificate))


@pytest.fixture(scope="module")
def front(platform, tmp_path_factory):
    folder = tmp_path_factory.mktemp("nginx")
    folder.chmod(0o755)
    front = Front(folder, platform.platform.port)
    checked = subprocess.run([*front.command, "-t"], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
    process = subprocess.Popen(front.command)
    end = time.monotonic() + 20
    while time.monotonic() < end:
        try:
            httpx.get(front.url, verify=front.trust)
            break
        except httpx.TransportError:
            time.sleep(0.1)
    yield front
    process.terminate()
    process.wait()


@pytest.fixture(scope="module")
def key(platform):
    platform.provider("behind-nginx", rich(7))
    return platform.platform.children["worker-behind-nginx"].env["DML_KEY"]


def test_pages_come_by_tls_and_what_is_plain_is_sent_there(front):
    page = httpx.get(front.url, verify=front.trust)
    assert (page.status_code, "Content-Security-Policy" in page.headers) == (200, True)
    sent = httpx.get(f"http://localhost:{front.plain}/tickets/?a=1")
    assert (sent.status_code, sent.headers["Location"]) == (301, "https://localhost/tickets/?a=1")


def test_what_is_measured_inside_is_not_told_outside(front):
    assert httpx.get(f"{front.url}/metrics", verify=front.trust).status_code == 404


def test_a_workers_socket_goes_through(front, key):
    address = f"wss://localhost:{front.port}{protocol.SOCKET_PATH}"
    told = {"Authorization": f"Bearer {key}"}
    with connect(address, additional_headers=told, ssl=front.trust, proxy=None) as socket:
        socket.ping().wait(10)


def test_a_workers_bytes_go_through_and_too_many_are_refused(front, key):
    address = f"{front.url}{protocol.blob_path('a' * 64)}"
    told = {"Authorization": f"Bearer {key}"}
    assert httpx.get(address, headers=told, verify=front.trust).status_code in (403, 404)
    sent = httpx.put(address, headers=told, content=b"x" * 1000, verify=front.trust)
    assert sent.status_code in (403, 413), "it has no lease, and may store nothing"


def test_a_form_from_another_site_is_refused(front):
    sent = httpx.post(f"{front.url}/accounts/login/", headers={"Origin": "https://evil.example"}, verify=front.trust)
    assert sent.status_code == 403
