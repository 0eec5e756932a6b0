"""`python -m debate_rl`, and `accelerate launch ... -m debate_rl`: the command line."""

from debate_rl.cli.main import main

if __name__ == "__main__":
    main()
