"""What a VM booted: the guest's own account, appraised against its vTPM, remembered beside the VM (A1)."""
