"""The edge: HTTP and WebSocket on Starlette and uvicorn. Nothing here decides where a message goes."""
