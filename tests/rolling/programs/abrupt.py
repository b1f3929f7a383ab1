"""A web server that knows no orderly stop: SIGTERM ends it in the middle of whatever it does."""
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
import sys
import time

BODY = b"served\n"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        time.sleep(0.02)
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY)))
        # The base class closes when it was asked to, but does not say so.
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(BODY)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    # The default of 5 loses connections of a burst before the program has seen them.
    request_queue_size = 128


Server(("", int(sys.argv[1])), Handler).serve_forever()
