package drivertest

// Guest is a disk with a whole operating system, of one sector: it does nothing but count the seconds on its console and switch itself off
// when its power button is pressed. It is for virtual machines of QEMU's kind q35, for which there is no time to boot.
func Guest() []byte {
	disk := make([]byte, 1<<20)
	copy(disk, guest)
	disk[510], disk[511] = 0x55, 0xaa
	return disk
}

var guest = []byte{
	0xba, 0x02, 0x06, // mov dx, 0x602    ACPI's enable register
	0xb8, 0x00, 0x01, // mov ax, 0x100    its power button
	0xef,             // out dx, ax
	0xfb,             // again: sti
	0xf4,             // hlt              until the next interrupt: the clock's
	0xba, 0xf8, 0x03, // mov dx, 0x3f8    the console
	0xb0, 0x2e, // mov al, '.'
	0xee,             // out dx, al
	0xba, 0x00, 0x06, // mov dx, 0x600    ACPI's status register
	0xed,             // in ax, dx
	0xf6, 0xc4, 0x01, // test ah, 1
	0x74, 0xef, // jz again
	0xba, 0x04, 0x06, // mov dx, 0x604    ACPI's control register
	0xb8, 0x00, 0x20, // mov ax, 0x2000   off
	0xef,       // out dx, ax
	0xf4,       // hlt
	0xeb, 0xfd, // jmp $-1
}
