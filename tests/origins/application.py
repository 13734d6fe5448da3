"""The application that gunicorn serves as an origin: it records each request from within.

Must not know: how gunicorn is started; that is in `gunicorn.conf.py`. Main items: `answer`, the WSGI application;
`Worker`, which also records what gunicorn could not parse.
"""

import os

from gunicorn.workers.gthread import ThreadWorker
from handler import saw
from seen import Seen

SEEN = Seen(os.environ["ORIGIN_SEEN"])


class Worker(ThreadWorker):
    """gunicorn's threaded worker."""

    def handle_error(self, request, client, address, error):
        """Called for what is no request, and for errors in an answer."""
        SEEN.write("", "", None, None, None, False, 400)
        super().handle_error(request, client, address, error)


def answer(environ, start_response):
    method, target, case = environ["REQUEST_METHOD"], environ["RAW_URI"], environ.get("HTTP_X_CASE")
    try:
        body = environ["wsgi.input"].read()
    except Exception:
        # Each of gunicorn's readers has errors of its own; all of them mean that the body was cut or made no sense.
        SEEN.write_body(method, target, case, b"", complete=False, status=400)
        raise
    # gunicorn takes the end of the connection for the end of the body.
    length = environ.get("CONTENT_LENGTH") or ""
    complete = not length.isdigit() or len(body) == int(length)
    # Before the answer, so that whoever has the answer finds the line.
    SEEN.write_body(method, target, case, body, complete, 200 if complete else 400)
    text = b"" if method == "HEAD" else b"seen\n"
    start_response("200 OK", [("Content-Length", str(len(text))), ("X-Saw", saw(method, target))])
    return [text]
