"""A real Slurm cluster with a real sshd on this one machine, run by the user who asks for it."""
