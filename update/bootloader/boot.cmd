# Kogge: choose a slot, count its try, start it. U-Boot runs this at every boot.
#
# A/ and B/ have kernel, initrd, cmdline (text: bootargs=...), and dtb where U-Boot's own
# device tree will not do. A slot is proven if the file "proven" is in its folder.
# kogge.env says what to start, in 512 bytes of text that may be anything:
#   kogge_slot=A  the proven slot to start
#   kogge_try=B   the slot on trial, if there is one
#   kogge_left=3  its tries
# Only what every packaged U-Boot has is used here: a chain of ifs instead of setexpr.
setenv kogge_part "${devtype} ${devnum}:${distro_bootpart}"
setenv kogge_slot
setenv kogge_try
setenv kogge_left

# 512 bytes, whatever the length of the file: only what it says about us is taken.
if load ${kogge_part} ${kernel_addr_r} kogge.env 200; then
  env import -t ${kernel_addr_r} ${filesize} kogge_slot kogge_try kogge_left
fi

# The parts of a slot. The initramfs comes last, because booti wants its size.
setenv kogge_load 'load ${kogge_part} ${kernel_addr_r} ${kogge_s}/cmdline && setenv bootargs && env import -t ${kernel_addr_r} ${filesize} bootargs && test -n "${bootargs}" && load ${kogge_part} ${kernel_addr_r} ${kogge_s}/kernel && run kogge_dtb && load ${kogge_part} ${ramdisk_addr_r} ${kogge_s}/initrd'
setenv kogge_dtb 'if test -e ${kogge_part} ${kogge_s}/dtb; then setenv kogge_fdt ${fdt_addr_r}; load ${kogge_part} ${fdt_addr_r} ${kogge_s}/dtb; else setenv kogge_fdt ${fdtcontroladdr}; fi'
# Which disk this is, for a machine with two of them. Not every U-Boot can tell.
setenv kogge_where
if part uuid ${kogge_part} kogge_uuid; then setenv kogge_where " kogge.bootpart=${kogge_uuid}"; fi
# Whoever returns from these has not started anything.
setenv kogge_start 'if run kogge_load; then setenv bootargs "${bootargs}${kogge_where}${kogge_mark}"; echo "kogge: start slot ${kogge_s}${kogge_mark}"; booti ${kernel_addr_r} ${ramdisk_addr_r}:${filesize} ${kogge_fdt}; fi; echo "kogge: slot ${kogge_s} does not start"'

# A trial: its try is counted before it starts. One that cannot be counted would go on
# for ever, so it is not started.
setenv kogge_s
if test "${kogge_try}" = A || test "${kogge_try}" = B; then
  if test "${kogge_left}" = 3; then setenv kogge_left 2; setenv kogge_s ${kogge_try};
  elif test "${kogge_left}" = 2; then setenv kogge_left 1; setenv kogge_s ${kogge_try};
  elif test "${kogge_left}" = 1; then setenv kogge_left 0; setenv kogge_s ${kogge_try};
  fi
fi
if test -n "${kogge_s}"; then
  if env export -t -s 200 ${kernel_addr_r} kogge_left kogge_slot kogge_try && fatwrite ${kogge_part} ${kernel_addr_r} kogge.env 200; then
    setenv kogge_mark " kogge.trial=1"
    run kogge_start
  else
    echo "kogge: the try of slot ${kogge_s} cannot be counted"
  fi
fi

# The proven slots: the one that kogge.env names, then any.
setenv kogge_mark
if test "${kogge_slot}" = A || test "${kogge_slot}" = B; then
  if test -e ${kogge_part} ${kogge_slot}/proven; then setenv kogge_s ${kogge_slot}; run kogge_start; fi
fi
if test -e ${kogge_part} A/proven; then setenv kogge_s A; run kogge_start; fi
if test -e ${kogge_part} B/proven; then setenv kogge_s B; run kogge_start; fi

# Nothing is proven, or nothing of it starts: whatever there is.
setenv kogge_mark " kogge.trial=1"
setenv kogge_s A; run kogge_start
setenv kogge_s B; run kogge_start
echo "kogge: no slot starts: flash this medium again. The next attempt follows in a minute."
sleep 60
reset
