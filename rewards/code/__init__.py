"""The check `code_answer`: runs a program against tests in a sandbox and compares outside of it."""
