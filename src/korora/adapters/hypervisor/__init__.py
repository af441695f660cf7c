"""QEMU by QMP (requirement H1): `qemu.Qemu` is the way in."""
