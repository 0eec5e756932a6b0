"""`python -m debate_rl`, and `accelerate launch ... -m debate_rl`: the command line."""

import sys


def main() -> None:
    """Run the command line; Ctrl-C while it is loaded is no error to explain."""
    try:
        from debate_rl.cli.main import main as run_command  # here: this takes a second, in which Ctrl-C may come
    except KeyboardInterrupt:
        print("\ndebate-rl: stopped before anything was begun; nothing was changed", file=sys.stderr)
        raise SystemExit(130) from None
    run_command()


if __name__ == "__main__":
    main()
