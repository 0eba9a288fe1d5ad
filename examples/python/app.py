"""A small service: answers every request with a signed greeting."""

import configparser
from http.server import BaseHTTPRequestHandler, HTTPServer

import six
from itsdangerous import Signer

SETTINGS = configparser.ConfigParser()
SETTINGS.read("/app/settings.ini")


class Greeter(BaseHTTPRequestHandler):
    def do_GET(self):
        body = Signer("key").sign(SETTINGS["service"]["greeting"])
        self.send_response(200)
        self.end_headers()
        self.wfile.write(six.ensure_binary(body) + b"\n")


if __name__ == "__main__":
    HTTPServer(("", SETTINGS.getint("service", "port")), Greeter).serve_forever()
