"""The small application that gunicorn serves as `wsgi` and uvicorn as `asgi`."""
import asyncio
import time

# Long enough that some request is always under way when a stop comes.
WORK = 0.02
BODY = b"served\n"
HEADERS = [("content-type", "text/plain"), ("content-length", str(len(BODY)))]


def wsgi(environ, start_response):
    time.sleep(WORK)
    start_response("200 OK", HEADERS)
    return [BODY]


async def asgi(scope, receive, send):
    if scope["type"] != "http":  # uvicorn asks for the lifespan protocol first
        raise NotImplementedError(scope["type"])
    await asyncio.sleep(WORK)
    headers = [(name.encode(), value.encode()) for name, value in HEADERS]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": BODY})
