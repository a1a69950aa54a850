"""This command makes a profile for a user's dataset: `python -m flows.adopt FOLDER --name cells`

flows/new_profile/ does the work.
"""

from flows.runtime import arguments as command_line

if __name__ == "__main__":
    command_line.check()  # before the import below, which takes seconds

    from flows.new_profile.adoption import main

    main()
