"""uvicorn with limits: nobody holds a connection or memory by being slow, by talking without end, or by not listening.

``config`` sets it up and ``server`` runs it.
"""
