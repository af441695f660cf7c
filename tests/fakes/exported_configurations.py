"""Configuration files as hosts and products write them, with what they add of their own. All text is ours."""

# ruff: noqa: E501  lines are as long as exports have them

from __future__ import annotations

from typing import Final

VMX: Final = r"""#!/usr/bin/vmware
.encoding = "windows-1252"
config.version = "8"
virtualHW.version = "19"
displayName = "Büro – Server"
guestOS = "windows9-64"
firmware = "efi"
uefi.secureBoot.enabled = "TRUE"
memSize = "4096"
numvcpus = "2"
cpuid.coresPerSocket = "2"
scsi0.present = "TRUE"
scsi0.virtualDev = "lsisas1068"
scsi0:0.present = "TRUE"
scsi0:0.fileName = "Windows 10 x64-000002.vmdk"
scsi0:0.mode = "independent-persistent"
sata0:1.present = "TRUE"
sata0:1.deviceType = "cdrom-image"
sata0:1.fileName = "C:\\ISO\\win.iso"
sata0:1.startConnected = "FALSE"
ethernet0.present = "TRUE"
ethernet0.connectionType = "nat"
ethernet0.addressType = "generated"
ethernet0.generatedAddress = "00:0c:29:ab:cd:ef"
ethernet0.generatedAddressOffset = "0"
ethernet0.virtualDev = "e1000e"
ethernet0.pciSlotNumber = "160"
uuid.bios = "56 4d 1a 2b 3c 4d 5e 6f-70 81 92 a3 b4 c5 d6 e7"
uuid.location = "56 4d 1a 2b 3c 4d 5e 6f-70 81 92 a3 b4 c5 d6 e7"
vtpm.present = "TRUE"
managedVM.autoAddVTPM = "software"
encryption.keySafe = "vmware:key/list/(pair/(phrase/x/pass2key%3dPBKDF2))"
annotation = "line one|0Aline |22two|22"
guestInfo.detailed.data = "architecture='X86' bitness='64' prettyName='Windows 10'"
toolScripts.afterPowerOn = "TRUE"
sharedFolder0.present = "TRUE"
sharedFolder0.enabled = "TRUE"
sharedFolder0.readAccess = "TRUE"
sharedFolder0.writeAccess = "TRUE"
sharedFolder0.hostPath = "D:\\Share"
sharedFolder0.guestName = "Share"
sharedFolder.maxNum = "1"
usb.generic.autoconnect = "FALSE"
tools.syncTime = "FALSE"
svga.guestBackedPrimaryAware = "TRUE"
migrate.hostlog = ".\\Windows 10-1234.hlog"
checkpoint.vmState = ""
vmotion.checkpointFBSize = "4194304"
"""

LIBVIRT: Final = """\
<!--
WARNING: THIS IS AN AUTO-GENERATED FILE.
-->
<domain type='kvm' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>web</name>
  <uuid>4dea22b3-1d52-d8f3-2516-782e98ab3fa0</uuid>
  <title>web server</title>
  <metadata>
    <libosinfo:libosinfo xmlns:libosinfo="http://libosinfo.org/xmlns/libvirt/domain/1.0">
      <libosinfo:os id="http://debian.org/debian/12"/>
    </libosinfo:libosinfo>
    <nova:instance xmlns:nova="http://openstack.org/xmlns/libvirt/nova/1.1">
      <nova:package version="25.0"/><nova:name>web</nova:name><nova:creationTime>2024-01-01 00:00:00</nova:creationTime>
      <nova:flavor name="m1"><nova:memory>4096</nova:memory></nova:flavor>
    </nova:instance>
  </metadata>
  <memory unit='KiB'>4194304</memory>
  <currentMemory unit='KiB'>4194304</currentMemory>
  <vcpu placement='static' current='2'>4</vcpu>
  <resource><partition>/machine</partition></resource>
  <sysinfo type='smbios'><system><entry name='manufacturer'>OpenStack</entry><entry name='serial'>abc</entry></system></sysinfo>
  <os firmware='efi'>
    <type arch='x86_64' machine='pc-q35-7.2'>hvm</type>
    <firmware><feature enabled='yes' name='enrolled-keys'/><feature enabled='yes' name='secure-boot'/></firmware>
    <loader readonly='yes' secure='yes' type='pflash'>/usr/share/OVMF/OVMF_CODE_4M.ms.fd</loader>
    <nvram template='/usr/share/OVMF/OVMF_VARS_4M.ms.fd'>/var/lib/libvirt/qemu/nvram/web_VARS.fd</nvram>
    <boot dev='hd'/>
    <smbios mode='sysinfo'/>
  </os>
  <features><acpi/><apic/><smm state='on'/></features>
  <cpu mode='host-passthrough' check='none' migratable='on'/>
  <clock offset='utc'><timer name='rtc' tickpolicy='catchup'/><timer name='pit' tickpolicy='delay'/></clock>
  <on_poweroff>destroy</on_poweroff>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <disk type='file' device='disk'><driver name='qemu' type='qcow2' discard='unmap'/><source file='/var/lib/libvirt/images/web.qcow2' index='1'/><backingStore type='file' index='2'><format type='qcow2'/><source file='/srv/base.qcow2'/><backingStore/></backingStore><target dev='vda' bus='virtio'/><alias name='virtio-disk0'/><address type='pci' domain='0x0000' bus='0x04' slot='0x00' function='0x0'/></disk>
    <disk type='network' device='disk'><driver name='qemu' type='raw' cache='writeback'/><auth username='libvirt'><secret type='ceph' uuid='11111111-2222-3333-4444-555555555555'/></auth><source protocol='rbd' name='volumes/vol-1'><host name='10.0.0.1' port='6789'/><host name='10.0.0.2' port='6789'/></source><target dev='vdb' bus='virtio'/><serial>vol-1</serial></disk>
    <disk type='file' device='cdrom'><target dev='sda' bus='sata'/><readonly/></disk>
    <controller type='usb' index='0' model='qemu-xhci' ports='15'/>
    <controller type='pci' index='0' model='pcie-root'/>
    <interface type='network'><mac address='52:54:00:AB:cd:ef'/><source network='default' portid='d1' bridge='virbr0'/><target dev='vnet3'/><model type='virtio'/><alias name='net0'/></interface>
    <interface type='bridge'><mac address='52:54:00:11:22:33'/><source bridge='br-int'/><virtualport type='openvswitch'><parameters interfaceid='aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee'/></virtualport><target dev='tap1'/><model type='virtio'/></interface>
    <serial type='pty'><source path='/dev/pts/3'/><target type='isa-serial' port='0'/></serial>
    <console type='pty' tty='/dev/pts/3'><source path='/dev/pts/3'/><target type='serial' port='0'/></console>
    <channel type='unix'><source mode='bind' path='/var/lib/libvirt/qemu/channel/target/domain-3-web/org.qemu.guest_agent.0'/><target type='virtio' name='org.qemu.guest_agent.0' state='connected'/></channel>
    <tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>
    <graphics type='vnc' port='5903' autoport='yes' listen='127.0.0.1'><listen type='address' address='127.0.0.1'/></graphics>
    <hostdev mode='subsystem' type='pci' managed='yes'><source><address domain='0x0000' bus='0x3b' slot='0x00' function='0x0'/></source></hostdev>
    <memballoon model='virtio'><stats period='10'/></memballoon>
    <rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>
  </devices>
  <seclabel type='dynamic' model='apparmor' relabel='yes'><label>libvirt-4dea</label></seclabel>
  <qemu:commandline>
    <qemu:arg value='-device'/><qemu:arg value='ivshmem-plain,memdev=m'/><qemu:env name='X' value='1'/>
  </qemu:commandline>
  <qemu:capabilities><qemu:del capability='usb-storage.removable'/></qemu:capabilities>
</domain>
"""

XL: Final = """\
# -*- mode: python; -*-
# Automatically written
name = "web"
uuid = '4DEA22B3-1D52-D8F3-2516-782E98AB3FA0'
type = "hvm"
builder='hvm'
memory = 4096
maxmem = 0x2000
vcpus=4
maxvcpus = '4'
cpus = ["0-3", "^1",]
firmware = 'ovmf'
disk = [
    'phy:/dev/vg/lv,xvda,w',   # root
    "file:/srv/iso/deb.iso,hdc:cdrom,r",
    'format=qcow2, vdev=xvdb, access=rw, target=/srv/data.qcow2',
    '/dev/vg/swap,raw,xvdc,rw',
    'tap:qcow2:/srv/t.qcow2,xvde,w',
    ]
vif = [ 'mac=00:16:3E:AA:bb:cc, bridge=xenbr0, model=e1000, vifname=web0',
        'bridge=xenbr1,mac=00:16:3e:00:00:01,script=vif-bridge,ip=10.0.0.2',
      ]
vfb = [ 'type=vnc,vnclisten=127.0.0.1,vncpasswd=secret,keymap=de' ]
pci = [ '0000:03:00.0,permissive=1', "04:00.0" ];
boot = "cd"
on_poweroff = 'destroy'; on_reboot = 'restart'
on_crash = "coredump-restart"
serial = [ 'pty', ]
vnc = 1
vnclisten = "0.0.0.0"
usbdevice=['tablet']
device_model_args = [ "-device", "ivshmem" ]
extra = "root=/dev/xvda1 ro"
"""

XL_IN_OTHER_WORDS: Final = """\
extra = "root=/dev/xvda1 ro"
name = 'web'
uuid = "4dea22b3-1d52-d8f3-2516-782e98ab3fa0"
type = 'hvm'
builder = "hvm"
memory = "4096"
maxmem = 8192
vcpus = 4; maxvcpus = 4
cpus = ['0-3', '^1']
firmware = "ovmf"
disk = ['vdev=xvda,access=rw,format=raw,backendtype=phy,target=/dev/vg/lv','devtype=cdrom,vdev=hdc,access=ro,format=raw,target=/srv/iso/deb.iso',
'/srv/data.qcow2,qcow2,xvdb,w','vdev=xvdc,target=/dev/vg/swap','format=qcow2,vdev=xvde,target=/srv/t.qcow2']
vif = ['bridge=xenbr0,mac=00:16:3e:aa:bb:cc,vifname=web0,model=e1000','mac=00:16:3e:00:00:01,ip=10.0.0.2,bridge=xenbr1,script=vif-bridge']
vfb = ['type=vnc,vnclisten=127.0.0.1,vncpasswd=secret,keymap=de']
pci = ['0000:03:00.0,permissive=1', '04:00.0']
boot = 'cd'
on_poweroff = "destroy"
on_reboot = "restart"
on_crash = 'coredump-restart'
serial = ['pty']
vnc = '1'
vnclisten = '0.0.0.0'
usbdevice = ["tablet"]
device_model_args = ["-device","ivshmem"]
"""

VBOX: Final = """\
<?xml version="1.0"?>
<!--
** DO NOT EDIT THIS FILE.
-->
<VirtualBox xmlns="http://www.virtualbox.org/" version="1.19-windows">
  <Machine uuid="{4dea22b3-1d52-d8f3-2516-782e98ab3fa0}" name="Büro" OSType="Windows11_64" snapshotFolder="Snapshots" lastStateChange="2024-02-01T10:00:00Z">
    <MediaRegistry>
      <HardDisks>
        <HardDisk uuid="{11111111-2222-3333-4444-555555555555}" location="win.vdi" format="VDI" type="Normal">
          <HardDisk uuid="{21111111-2222-3333-4444-555555555555}" location="Snapshots/{21111111-2222-3333-4444-555555555555}.vdi" format="VDI"/>
        </HardDisk>
      </HardDisks>
      <DVDImages><Image uuid="{31111111-2222-3333-4444-555555555555}" location="C:/iso/win.iso"/></DVDImages>
    </MediaRegistry>
    <ExtraData>
      <ExtraDataItem name="GUI/LastNormalWindowPosition" value="10,10,800,600"/>
      <ExtraDataItem name="GUI/LastGuestSizeHint" value="800,600"/>
      <ExtraDataItem name="VBoxInternal/Devices/VMMDev/0/Config/GetHostTimeDisabled" value="1"/>
    </ExtraData>
    <Snapshot uuid="{41111111-2222-3333-4444-555555555555}" name="Snapshot 1" timeStamp="2024-01-01T10:00:00Z">
      <Hardware><Memory RAMSize="4096"/></Hardware>
    </Snapshot>
    <Hardware>
      <CPU count="2"><PAE enabled="false"/><LongMode enabled="true"/><HardwareVirtExLargePages enabled="true"/></CPU>
      <Memory RAMSize="4096"/>
      <Firmware type="EFI"/>
      <HID Pointing="USBTablet"/>
      <Boot><Order position="1" device="HardDisk"/><Order position="2" device="DVD"/><Order position="3" device="None"/></Boot>
      <Display controller="VBoxSVGA" VRAMSize="128"/>
      <RemoteDisplay enabled="true"><VRDEProperties><Property name="TCP/Address" value="127.0.0.1"/><Property name="TCP/Ports" value="3389"/></VRDEProperties></RemoteDisplay>
      <BIOS><IOAPIC enabled="true"/><SmbiosUuidLittleEndian enabled="true"/><NVRAM path="win.nvram"/></BIOS>
      <TrustedPlatformModule type="v2_0" location=""/>
      <USB><Controllers><Controller name="xHCI" type="XHCI"/></Controllers><DeviceFilters><DeviceFilter name="stick" active="true" vendorId="0951"/></DeviceFilters></USB>
      <Network>
        <Adapter slot="0" enabled="true" MACAddress="080027ABCDEF" type="82540EM"><DisabledModes><InternalNetwork name="intnet"/><BridgedInterface name="eth0"/></DisabledModes><NAT localhost-reachable="true"><Forwarding name="ssh" proto="1" hostport="2222" guestport="22"/></NAT></Adapter>
        <Adapter slot="1" enabled="false" MACAddress="080027ABCDEE" type="82540EM"/>
      </Network>
      <AudioAdapter controller="HDA" driver="DirectSound" enabled="true"/>
      <SharedFolders><SharedFolder name="share" hostPath="C:/share" writable="true" autoMount="true"/></SharedFolders>
      <Clipboard mode="Disabled"/><DragAndDrop mode="Disabled"/>
      <GuestProperties>
        <GuestProperty name="/VirtualBox/GuestInfo/OS/Product" value="Windows 11" timestamp="1" flags=""/>
        <GuestProperty name="/VirtualBox/HostInfo/GUI/LanguageID" value="de" timestamp="2" flags=""/>
        <GuestProperty name="/VirtualBox/GuestAdd/Version" value="7.0" timestamp="2" flags=""/>
      </GuestProperties>
      <StorageControllers>
        <StorageController name="SATA" type="AHCI" PortCount="2" useHostIOCache="false" Bootable="true">
          <AttachedDevice type="HardDisk" hotpluggable="false" port="0" device="0"><Image uuid="{21111111-2222-3333-4444-555555555555}"/></AttachedDevice>
          <AttachedDevice passthrough="false" type="DVD" hotpluggable="false" port="1" device="0"><Image uuid="{31111111-2222-3333-4444-555555555555}"/></AttachedDevice>
        </StorageController>
      </StorageControllers>
    </Hardware>
  </Machine>
</VirtualBox>
"""

OVF: Final = """\
<?xml version="1.0" encoding="windows-1252"?>
<!--Generated by some tool, build 123-->
<Envelope vmw:buildId="build-123" xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:cim="http://schemas.dmtf.org/wbem/wscim/1/common" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1" xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData" xmlns:vmw="http://www.vmware.com/schema/ovf" xmlns:vssd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">
  <References>
    <File ovf:href="web-disk1.vmdk" ovf:id="file1" ovf:size="12345"/>
  </References>
  <DiskSection>
    <Info>Virtual disk information</Info>
    <Disk ovf:capacity="16" ovf:capacityAllocationUnits="byte * 2^30" ovf:diskId="vmdisk1" ovf:fileRef="file1" ovf:format="http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized" ovf:populatedSize="1000"/>
  </DiskSection>
  <NetworkSection>
    <Info>The list of logical networks</Info>
    <Network ovf:name="VM Network"><Description>The VM Network network</Description></Network>
  </NetworkSection>
  <VirtualSystem ovf:id="web">
    <Info>A virtual machine</Info>
    <Name>web</Name>
    <OperatingSystemSection ovf:id="96" vmw:osType="debian10_64Guest">
      <Info>The kind of installed guest operating system</Info>
      <Description>Debian GNU/Linux 10 (64-bit) Bï¿½ro</Description>
    </OperatingSystemSection>
    <VirtualHardwareSection>
      <Info>Virtual hardware requirements</Info>
      <System>
        <vssd:ElementName>Virtual Hardware Family</vssd:ElementName>
        <vssd:InstanceID>0</vssd:InstanceID>
        <vssd:VirtualSystemIdentifier>web</vssd:VirtualSystemIdentifier>
        <vssd:VirtualSystemType>vmx-14</vssd:VirtualSystemType>
      </System>
      <Item>
        <rasd:AllocationUnits>hertz * 10^6</rasd:AllocationUnits>
        <rasd:Description>Number of Virtual CPUs</rasd:Description>
        <rasd:ElementName>2 virtual CPU(s)</rasd:ElementName>
        <rasd:InstanceID>1</rasd:InstanceID>
        <rasd:ResourceType>3</rasd:ResourceType>
        <rasd:VirtualQuantity>2</rasd:VirtualQuantity>
        <vmw:CoresPerSocket ovf:required="false">1</vmw:CoresPerSocket>
      </Item>
      <Item>
        <rasd:AllocationUnits>byte * 2^20</rasd:AllocationUnits>
        <rasd:Description>Memory Size</rasd:Description>
        <rasd:ElementName>4096MB of memory</rasd:ElementName>
        <rasd:InstanceID>2</rasd:InstanceID>
        <rasd:ResourceType>4</rasd:ResourceType>
        <rasd:VirtualQuantity>4096</rasd:VirtualQuantity>
      </Item>
      <Item>
        <rasd:Address>0</rasd:Address>
        <rasd:Description>SCSI Controller</rasd:Description>
        <rasd:ElementName>SCSI Controller 0</rasd:ElementName>
        <rasd:InstanceID>3</rasd:InstanceID>
        <rasd:ResourceSubType>VirtualSCSI</rasd:ResourceSubType>
        <rasd:ResourceType>6</rasd:ResourceType>
      </Item>
      <Item>
        <rasd:AddressOnParent>0</rasd:AddressOnParent>
        <rasd:ElementName>Hard Disk 1</rasd:ElementName>
        <rasd:HostResource>ovf:/disk/vmdisk1</rasd:HostResource>
        <rasd:InstanceID>4</rasd:InstanceID>
        <rasd:Parent>3</rasd:Parent>
        <rasd:ResourceType>17</rasd:ResourceType>
        <vmw:Config ovf:required="false" vmw:key="backing.writeThrough" vmw:value="false"/>
      </Item>
      <Item ovf:required="false">
        <rasd:AddressOnParent>7</rasd:AddressOnParent>
        <rasd:AutomaticAllocation>true</rasd:AutomaticAllocation>
        <rasd:Connection>VM Network</rasd:Connection>
        <rasd:Description>VmxNet3 ethernet adapter on "VM Network"</rasd:Description>
        <rasd:ElementName>Ethernet 1</rasd:ElementName>
        <rasd:InstanceID>5</rasd:InstanceID>
        <rasd:ResourceSubType>VmxNet3</rasd:ResourceSubType>
        <rasd:ResourceType>10</rasd:ResourceType>
        <vmw:Config ovf:required="false" vmw:key="wakeOnLanEnabled" vmw:value="true"/>
      </Item>
      <vmw:Config ovf:required="false" vmw:key="firmware" vmw:value="efi"/>
      <vmw:Config ovf:required="false" vmw:key="uefi.secureBootEnabled" vmw:value="true"/>
      <vmw:Config ovf:required="false" vmw:key="bootOptions.efiSecureBootEnabled" vmw:value="true"/>
      <vmw:ExtraConfig ovf:required="false" vmw:key="nvram" vmw:value="ovf:/file/file2"/>
    </VirtualHardwareSection>
    <AnnotationSection ovf:required="false"><Info>note</Info><Annotation>line</Annotation></AnnotationSection>
    <ProductSection ovf:class="vendor"><Info>x</Info><Product>web</Product><Property ovf:key="hostname" ovf:type="string" ovf:userConfigurable="true" ovf:value="web"/><Property ovf:key="password" ovf:type="string" ovf:value="secret"/></ProductSection>
  </VirtualSystem>
</Envelope>
"""

OVF_2: Final = """\
<?xml version="1.0"?>
<Envelope ovf:version="2.0" xml:lang="en-US" xmlns="http://schemas.dmtf.org/ovf/envelope/2" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/2" xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData" xmlns:vssd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xmlns:vbox="http://www.virtualbox.org/ovf/machine" xmlns:epasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_EthernetPortAllocationSettingData.xsd" xmlns:sasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_StorageAllocationSettingData.xsd">
  <References><File ovf:id="file1" ovf:href="deb-disk1.vmdk"/></References>
  <DiskSection><Info>List</Info><Disk ovf:capacity="8589934592" ovf:diskId="vmdisk1" ovf:fileRef="file1" ovf:format="http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized" vbox:uuid="11111111-2222-3333-4444-555555555555"/></DiskSection>
  <NetworkSection><Info>nets</Info><Network ovf:name="NAT"><Description>Logical network</Description></Network></NetworkSection>
  <VirtualSystem ovf:id="deb">
    <Info>A virtual machine</Info>
    <OperatingSystemSection ovf:id="96"><Info>os</Info><Description>Debian_64</Description><vbox:OSType ovf:required="false">Debian_64</vbox:OSType></OperatingSystemSection>
    <VirtualHardwareSection>
      <Info>hw</Info>
      <System><vssd:ElementName>Virtual Hardware Family</vssd:ElementName><vssd:InstanceID>0</vssd:InstanceID><vssd:VirtualSystemIdentifier>deb</vssd:VirtualSystemIdentifier><vssd:VirtualSystemType>virtualbox-2.2</vssd:VirtualSystemType></System>
      <Item><rasd:Caption>1 virtual CPU</rasd:Caption><rasd:Description>Number of virtual CPUs</rasd:Description><rasd:InstanceID>1</rasd:InstanceID><rasd:ResourceType>3</rasd:ResourceType><rasd:VirtualQuantity>1</rasd:VirtualQuantity></Item>
      <Item><rasd:AllocationUnits>MegaBytes</rasd:AllocationUnits><rasd:Caption>1024 MB of memory</rasd:Caption><rasd:InstanceID>2</rasd:InstanceID><rasd:ResourceType>4</rasd:ResourceType><rasd:VirtualQuantity>1024</rasd:VirtualQuantity></Item>
      <StorageItem><sasd:AddressOnParent>0</sasd:AddressOnParent><sasd:Caption>disk1</sasd:Caption><sasd:HostResource>/disk/vmdisk1</sasd:HostResource><sasd:InstanceID>5</sasd:InstanceID><sasd:Parent>3</sasd:Parent><sasd:ResourceType>17</sasd:ResourceType></StorageItem>
      <EthernetPortItem><epasd:AutomaticAllocation>true</epasd:AutomaticAllocation><epasd:Caption>Ethernet adapter on 'NAT'</epasd:Caption><epasd:Connection>NAT</epasd:Connection><epasd:InstanceID>6</epasd:InstanceID><epasd:ResourceSubType>E1000</epasd:ResourceSubType><epasd:ResourceType>10</epasd:ResourceType></EthernetPortItem>
    </VirtualHardwareSection>
    <vbox:Machine ovf:required="false" version="1.16-linux" uuid="{aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee}" name="deb" OSType="Debian_64" snapshotFolder="Snapshots" lastStateChange="2022-01-01T00:00:00Z"><ovf:Info>Complete VirtualBox machine configuration</ovf:Info><Hardware><CPU count="1"/><Memory RAMSize="1024"/></Hardware></vbox:Machine>
  </VirtualSystem>
</Envelope>
"""
