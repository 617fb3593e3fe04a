"""What is measured: each module has a ``NAME`` and a coroutine ``run`` that gives the rows of the table."""
