// bf16 attention on tensor cores for heads up to 128 wide: see attention_flash.cuh (tiles, traffic). Shared memory 48 KiB.
#include "attention_flash.cuh"

static __shared__ __attribute__((aligned(16))) uint8 pool[FlashBackward<128>::BYTES];
static_assert(FlashForward<128>::BYTES <= FlashBackward<128>::BYTES, "one pool for all");

NL_KERNEL(128) attention_forward_128_bf16(AttentionArgs a) { flashForward<128>(a, pool); }
NL_KERNEL(128) attention_query_grad_128_bf16(AttentionArgs a) { flashQueryGradients<128>(a, pool); }
NL_KERNEL(128) attention_key_grad_128_bf16(AttentionArgs a) { flashKeyGradients<128>(a, pool); }
NL_KERNEL(128) cached_attention_tile_128_bf16(AttentionArgs a) { flashCached<128>(a, pool); }
