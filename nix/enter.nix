# Shell code that makes .venv what an environment's lock says, and enters it.
{ environment, interpreter }:
''
  export CONFORMANCE_ENV=${environment} PYTHON=${interpreter} UV_PYTHON_DOWNLOADS=never
  if [ -x scripts/bootstrap ]; then
    scripts/bootstrap && . .venv/bin/activate
  else
    echo "nix: there is no scripts/bootstrap here: enter the checkout of gemma4-mtp-conformance first." >&2
  fi
''
