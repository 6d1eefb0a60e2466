// bf16 attention on tensor cores for heads up to 32 and 64 wide: see attention_flash.cuh (tiles, traffic). Shared memory 32 KiB.
#include "attention_flash.cuh"

static __shared__ __attribute__((aligned(16))) uint8 pool[FlashBackward<64>::BYTES];
static_assert(FlashForward<64>::BYTES <= FlashBackward<64>::BYTES, "one pool for all");

NL_KERNEL(128) attention_forward_32_bf16(AttentionArgs a) { flashForward<32>(a, pool); }
NL_KERNEL(128) attention_query_grad_32_bf16(AttentionArgs a) { flashQueryGradients<32>(a, pool); }
NL_KERNEL(128) attention_key_grad_32_bf16(AttentionArgs a) { flashKeyGradients<32>(a, pool); }
NL_KERNEL(128) attention_forward_64_bf16(AttentionArgs a) { flashForward<64>(a, pool); }
NL_KERNEL(128) attention_query_grad_64_bf16(AttentionArgs a) { flashQueryGradients<64>(a, pool); }
NL_KERNEL(128) attention_key_grad_64_bf16(AttentionArgs a) { flashKeyGradients<64>(a, pool); }
NL_KERNEL(128) cached_attention_tile_64_bf16(AttentionArgs a) { flashCached<64>(a, pool); }
