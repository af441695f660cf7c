"""Looking into one VM: everything that the policy asks for, in a process of its own."""
