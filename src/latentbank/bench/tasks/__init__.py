"""The protocols of the bench, one file each; `bench.task` finds them here."""
