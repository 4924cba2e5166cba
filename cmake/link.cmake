# SPDX-License-Identifier: Apache-2.0
# Links TARGET as the one static program at BDBI_TEXT_BASE, out of everyone's way and below the kernel's PIE base.
#
# Static glibc at such an address: Scrt1.o and crtbeginS.o/crtendS.o are rip-relative; --no-relax keeps ld from turning GOT loads
# into 32-bit immediates; a call to an undefined weak symbol cannot reach 0 from here, so link_stubs.c defines those that nobody
# calls and -u pulls in the one that libc has.
#
# The core's sections (launcher/core.ld) and the translator's .bss have addresses far from the rest, hence segments of their own: what the
# core touches is not the translator's, and the kernel need not clear the end of the translator's last data page. What a start touches of the core's is within 2 MB:
# one page table.
# launcher/layout.h knows the range as BDBI_IMAGE_BASE .. BDBI_IMAGE_END.
set(BDBI_TEXT_BASE 0x554000000000)
set(BDBI_SEGMENTS .bss=0x554008000000 .core.text=0x554010000000 .core.bss=0x554010040000)

function(bdbi_link_high target)
    list(TRANSFORM BDBI_SEGMENTS PREPEND -Wl,--section-start= OUTPUT_VARIABLE segments)
    foreach(object Scrt1.o crti.o crtbeginS.o crtendS.o crtn.o)
        execute_process(COMMAND ${CMAKE_C_COMPILER} -print-file-name=${object} OUTPUT_VARIABLE path OUTPUT_STRIP_TRAILING_WHITESPACE)
        set(crt_${object} ${path})
    endforeach()
    target_sources(${target} PRIVATE ${CMAKE_SOURCE_DIR}/cmake/link_stubs.c)
    set_target_properties(${target} PROPERTIES POSITION_INDEPENDENT_CODE ON LINKER_LANGUAGE CXX)
    target_link_options(${target} PRIVATE -static -no-pie -nostdlib -nostartfiles -Wl,--no-relax
        -Wl,-Ttext-segment=${BDBI_TEXT_BASE} ${segments} -Wl,--gc-sections -Wl,-z,norelro -Wl,-z,noseparate-code -Wl,-u,__call_tls_dtors -Wl,-u,__pthread_unwind -Wl,-u,__glibc_tls_internal_free
        ${crt_Scrt1.o} ${crt_crti.o} ${crt_crtbeginS.o})
    target_link_libraries(${target} PRIVATE
        -Wl,--start-group ${LLVM_LIBS} elf lmdb z zstd m c stdc++ gcc gcc_eh pthread -Wl,--end-group
        ${crt_crtendS.o} ${crt_crtn.o})
endfunction()
