"""How many processes gunicorn and uvicorn would start."""
from gunicorn.config import Config
import uvicorn

print("gunicorn", Config().workers)
print("uvicorn", uvicorn.Config("program:application").workers)
