/* SPDX-License-Identifier: Apache-2.0
 *
 * Weak references of static libraries that would stay undefined (address 0, out of reach of a rel32): see link.cmake. The
 * first three are start-up hooks with nothing to do in a program without relocations; the rest belong to optional runtimes
 * (zstd tracing, transactional memory) that nothing here uses.
 */
#define STUB(name)                                                                                                             \
    void name(void);                                                                                                           \
    void name(void)                                                                                                            \
    {                                                                                                                          \
    }

STUB(_dl_relocate_static_pie)
STUB(__pthread_initialize_minimal)
STUB(__cxa_finalize)
STUB(ZSTD_trace_compress_begin)
STUB(ZSTD_trace_compress_end)
STUB(ZSTD_trace_decompress_begin)
STUB(ZSTD_trace_decompress_end)
STUB(_ITM_RU1)
STUB(_ITM_RU8)
STUB(_ITM_memcpyRtWn)
STUB(_ITM_memcpyRnWt)
STUB(_ITM_addUserCommitAction)
STUB(_ITM_registerTMCloneTable)
STUB(_ITM_deregisterTMCloneTable)
STUB(_ZGTtnam)
STUB(_ZGTtdlPv)
