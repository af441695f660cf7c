"""One VM, web-1, as six formats say it. Element and key names are the formats' own; the VM is made up."""

from __future__ import annotations

from korora.model.vm_settings import ConfigurationFormat

UUID = "6f1c2a34-9d0e-4b7a-8c55-0123456789ab"

LIBVIRT = f"""\
<?xml version='1.0' encoding='UTF-8'?>
<!-- written by hand -->
<domain type='kvm' id='7' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>web-1</name>
  <uuid>{UUID}</uuid>
  <description>shop</description>
  <memory unit='GiB'>2</memory>
  <currentMemory unit='GiB'>2</currentMemory>
  <vcpu placement='static'>2</vcpu>
  <os>
    <type arch='x86_64' machine='pc-q35-7.2'>hvm</type>
    <loader readonly='yes' secure='yes' type='pflash'>/usr/share/OVMF/OVMF_CODE_4M.ms.fd</loader>
    <nvram>/var/lib/libvirt/qemu/nvram/web-1_VARS.fd</nvram>
    <kernel>/boot/vmlinuz</kernel>
    <initrd>/boot/initrd.img</initrd>
    <cmdline>root=/dev/vda1 ro quiet</cmdline>
    <boot dev='hd'/>
  </os>
  <features><acpi/><apic/><smm state='on'/></features>
  <cpu mode='custom' match='exact'>
    <model fallback='forbid'>Skylake-Server</model>
    <feature policy='disable' name='hle'/>
    <feature policy='require' name='aes'/>
  </cpu>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2' cache='none'/>
      <source file='/var/lib/images/web-1.qcow2'/>
      <target dev='vda' bus='virtio'/>
      <alias name='virtio-disk0'/>
    </disk>
    <disk type='file' device='cdrom'>
      <driver name='qemu' type='raw'/>
      <source file='/iso/install.iso'/>
      <target dev='sda' bus='sata'/>
      <readonly/>
    </disk>
    <interface type='user'>
      <mac address='52:54:00:12:34:56'/>
      <model type='virtio'/>
    </interface>
    <interface type='bridge'>
      <mac address='52:54:00:12:34:57'/>
      <source bridge='br0'/>
      <target dev='vnet3'/>
      <model type='virtio'/>
    </interface>
    <hostdev mode='subsystem' type='pci' managed='yes'>
      <source><address domain='0x0000' bus='0x06' slot='0x02' function='0x0'/></source>
    </hostdev>
    <filesystem type='mount' accessmode='passthrough'>
      <source dir='/srv/share'/>
      <target dir='share'/>
      <readonly/>
    </filesystem>
    <graphics type='vnc' port='5901' autoport='yes' listen='127.0.0.1' passwd='hush'>
      <listen type='address' address='127.0.0.1'/>
    </graphics>
    <tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>
  </devices>
  <qemu:commandline><qemu:arg value='-no-hpet'/></qemu:commandline>
</domain>
"""

XEN = f"""\
# web-1, as xl reads it
name = "web-1"
uuid = "{UUID}"
type = "hvm"
memory = 2048
vcpus = 2
bios = "ovmf"
kernel = "/boot/vmlinuz"
ramdisk = '/boot/initrd.img'
cmdline = "root=/dev/vda1 ro quiet"
disk = [
    'format=qcow2, vdev=xvda, access=rw, target=/var/lib/images/web-1.qcow2',
    '/iso/install.iso,,hdc,cdrom',
]
vif = [ 'mac=52:54:00:12:34:56,script=vif-nat,model=virtio', 'bridge=br0,mac=52:54:00:12:34:57' ]
vtpm = [ "backend=vtpm-dom,uuid={UUID}" ]
pci = [ '06:02.0' ]
p9 = [ 'tag=share,path=/srv/share,security_model=none' ]
vnc = 1; vnclisten = "127.0.0.1"
vncpasswd = "hush"
on_crash = "destroy"
"""

VMWARE = """\
.encoding = "UTF-8"
config.version = "8"
virtualHW.version = "19"
displayName = "web-1"
guestOS = "debian11-64"
uuid.bios = "6f 1c 2a 34 9d 0e 4b 7a-8c 55 01 23 45 67 89 ab"
uuid.location = "56 4d 2a 34 9d 0e 4b 7a-8c 55 01 23 45 67 89 ab"
memsize = "2048"
numvcpus = "2"
firmware = "efi"
uefi.secureBoot.enabled = "TRUE"
vtpm.present = "TRUE"
scsi0.present = "TRUE"
scsi0.virtualDev = "pvscsi"
scsi0:0.present = "TRUE"
scsi0:0.fileName = "web-1.vmdk"
sata0.present = "TRUE"
sata0:1.present = "TRUE"
sata0:1.deviceType = "cdrom-image"
sata0:1.fileName = "/iso/install.iso"
ethernet0.present = "TRUE"
ethernet0.connectionType = "nat"
ethernet0.addressType = "static"
ethernet0.address = "52:54:00:12:34:56"
ethernet0.virtualDev = "vmxnet3"
ethernet1.present = "TRUE"
ethernet1.connectionType = "bridged"
ethernet1.addressType = "generated"
ethernet1.generatedAddress = "52:54:00:12:34:57"
sharedFolder0.present = "TRUE"
sharedFolder0.hostPath = "/srv/share"
sharedFolder0.guestName = "share"
sharedFolder0.writeAccess = "FALSE"
pciPassthru0.present = "TRUE"
pciPassthru0.id = "06:02.0"
RemoteDisplay.vnc.enabled = "TRUE"
RemoteDisplay.vnc.ip = "127.0.0.1"
RemoteDisplay.vnc.password = "hush"
annotation = "a |22shop|22"
isolation.tools.copy.disable = "TRUE"
"""

VIRTUALBOX = f"""\
<?xml version="1.0"?>
<VirtualBox xmlns="http://www.virtualbox.org/" version="1.19-linux">
  <Machine uuid="{{{UUID}}}" name="web-1" OSType="Debian_64" lastStateChange="2026-01-01T00:00:00Z">
    <MediaRegistry>
      <HardDisks>
        <HardDisk uuid="{{11111111-0000-4000-8000-000000000001}}" location="web-1.vdi" format="VDI"
          type="Normal"/>
      </HardDisks>
      <DVDImages>
        <Image uuid="{{11111111-0000-4000-8000-000000000002}}" location="/iso/install.iso"/>
      </DVDImages>
    </MediaRegistry>
    <ExtraData><ExtraDataItem name="GUI/LastNormalWindowPosition" value="4,47"/></ExtraData>
    <Hardware>
      <CPU count="2"><PAE enabled="true"/></CPU>
      <Memory RAMSize="2048"/>
      <Firmware type="EFI"/>
      <Chipset type="ICH9"/>
      <TrustedPlatformModule type="v2_0" location=""/>
      <Boot><Order position="1" device="HardDisk"/><Order position="2" device="DVD"/></Boot>
      <RemoteDisplay enabled="true" authType="External">
        <VRDEProperties>
          <Property name="TCP/Address" value="127.0.0.1"/>
          <Property name="TCP/Ports" value="3389"/>
        </VRDEProperties>
      </RemoteDisplay>
      <Network>
        <Adapter slot="0" enabled="true" MACAddress="525400123456" type="82540EM">
          <DisabledModes><InternalNetwork name="intnet"/></DisabledModes>
          <NAT/>
        </Adapter>
        <Adapter slot="1" enabled="true" MACAddress="525400123457" type="virtio">
          <BridgedInterface name="br0"/>
        </Adapter>
        <Adapter slot="2" enabled="false" MACAddress="525400123458" type="virtio"/>
      </Network>
      <SharedFolders>
        <SharedFolder name="share" hostPath="/srv/share" writable="false" autoMount="false"/>
      </SharedFolders>
      <Clipboard mode="Disabled"/>
      <StorageControllers>
        <StorageController name="SATA" type="AHCI" PortCount="2">
          <AttachedDevice type="HardDisk" port="0" device="0">
            <Image uuid="{{11111111-0000-4000-8000-000000000001}}"/>
          </AttachedDevice>
          <AttachedDevice type="DVD" port="1" device="0" passthrough="false">
            <Image uuid="{{11111111-0000-4000-8000-000000000002}}"/>
          </AttachedDevice>
        </StorageController>
      </StorageControllers>
    </Hardware>
  </Machine>
</VirtualBox>
"""

_CIM = "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2"
OVF = f"""\
<?xml version="1.0" encoding="UTF-8"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1"
  xmlns:rasd="{_CIM}/CIM_ResourceAllocationSettingData" xmlns:vssd="{_CIM}/CIM_VirtualSystemSettingData"
  xmlns:vmw="http://www.vmware.com/schema/ovf">
  <References>
    <File ovf:id="file1" ovf:href="web-1.vmdk"/><File ovf:id="file2" ovf:href="install.iso"/>
  </References>
  <DiskSection>
    <Info>Disks</Info>
    <Disk ovf:diskId="vmdisk1" ovf:fileRef="file1" ovf:capacity="16" ovf:capacityAllocationUnits="byte * 2^30"
      ovf:format="http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"/>
  </DiskSection>
  <NetworkSection><Info>Networks</Info><Network ovf:name="NAT"/><Network ovf:name="br0"/></NetworkSection>
  <VirtualSystem ovf:id="web-1">
    <Info>A shop</Info>
    <Name>web-1</Name>
    <VirtualHardwareSection>
      <Info>Hardware</Info>
      <System><vssd:InstanceID>0</vssd:InstanceID><vssd:VirtualSystemType>vmx-19</vssd:VirtualSystemType></System>
      <Item>
        <rasd:ElementName>2 CPUs</rasd:ElementName><rasd:InstanceID>1</rasd:InstanceID>
        <rasd:ResourceType>3</rasd:ResourceType><rasd:VirtualQuantity>2</rasd:VirtualQuantity>
      </Item>
      <Item>
        <rasd:AllocationUnits>byte * 2^20</rasd:AllocationUnits><rasd:InstanceID>2</rasd:InstanceID>
        <rasd:ResourceType>4</rasd:ResourceType><rasd:VirtualQuantity>2048</rasd:VirtualQuantity>
      </Item>
      <Item>
        <rasd:InstanceID>3</rasd:InstanceID><rasd:ResourceSubType>VirtualSCSI</rasd:ResourceSubType>
        <rasd:ResourceType>6</rasd:ResourceType>
      </Item>
      <Item>
        <rasd:HostResource>ovf:/disk/vmdisk1</rasd:HostResource><rasd:InstanceID>4</rasd:InstanceID>
        <rasd:Parent>3</rasd:Parent><rasd:ResourceType>17</rasd:ResourceType>
      </Item>
      <Item>
        <rasd:HostResource>ovf:/file/file2</rasd:HostResource><rasd:InstanceID>5</rasd:InstanceID>
        <rasd:Parent>3</rasd:Parent><rasd:ResourceType>15</rasd:ResourceType>
      </Item>
      <Item>
        <rasd:Address>52:54:00:12:34:56</rasd:Address><rasd:Connection>NAT</rasd:Connection>
        <rasd:InstanceID>6</rasd:InstanceID><rasd:ResourceSubType>VmxNet3</rasd:ResourceSubType>
        <rasd:ResourceType>10</rasd:ResourceType>
      </Item>
      <Item>
        <rasd:Address>52:54:00:12:34:57</rasd:Address><rasd:Connection>br0</rasd:Connection>
        <rasd:InstanceID>7</rasd:InstanceID><rasd:ResourceSubType>E1000</rasd:ResourceSubType>
        <rasd:ResourceType>10</rasd:ResourceType>
      </Item>
      <Item>
        <rasd:InstanceID>8</rasd:InstanceID><rasd:ResourceSubType>vmware.vtpm</rasd:ResourceSubType>
        <rasd:ResourceType>1</rasd:ResourceType>
      </Item>
      <Item>
        <rasd:InstanceID>9</rasd:InstanceID><rasd:ResourceSubType>vmware.pci.passthrough</rasd:ResourceSubType>
        <rasd:ResourceType>1</rasd:ResourceType>
      </Item>
      <vmw:Config vmw:key="firmware" vmw:value="efi"/>
      <vmw:Config vmw:key="bootOptions.efiSecureBootEnabled" vmw:value="true"/>
    </VirtualHardwareSection>
  </VirtualSystem>
</Envelope>
"""

KORORA = f"""\
# Korora's own
name = "web-1"
uuid = "{UUID}"
memory = "2G"
cpus = 2

[firmware]
kind = "uefi"
secure_boot = true

[boot]
kernel = "/boot/vmlinuz"
initrd = "/boot/initrd.img"
command_line = "root=/dev/vda1 ro quiet"

[[disks]]
path = "/var/lib/images/web-1.qcow2"
format = "qcow2"

[[networks]]
bridge = "br0"
mac = "52:54:00:12:34:57"
"""

SAMPLES: dict[ConfigurationFormat, str] = {
    ConfigurationFormat.LIBVIRT: LIBVIRT,
    ConfigurationFormat.XEN: XEN,
    ConfigurationFormat.VMWARE: VMWARE,
    ConfigurationFormat.VIRTUALBOX: VIRTUALBOX,
    ConfigurationFormat.OVF: OVF,
    ConfigurationFormat.KORORA: KORORA,
}
