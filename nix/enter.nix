# Shell code that installs into .venv what an environment's lock names, and activates it.
{ environment, interpreter }:
''
  export CONFORMANCE_ENV=${environment} PYTHON=${interpreter} UV_PYTHON_DOWNLOADS=never
  if [ -x scripts/bootstrap ]; then
    scripts/bootstrap && . .venv/bin/activate
  else
    echo "nix: there is no scripts/bootstrap here: enter the checkout of gemma4-mtp-conformance first." >&2
  fi
''
