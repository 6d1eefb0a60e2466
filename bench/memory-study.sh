#!/usr/bin/env bash
# What skipped layers save, by the plan: BERT-base, smollm2-135m and Llama-2-7B, a mask against all layers, and the best mask within a budget
# where there are scores of layers. The numbers are planned, so any machine gives the same for the same number of threads; the last part
# trains two steps of real models and sets the plan beside what the device allocated. Markdown on the standard output.
# usage: bench/memory-study.sh MODELS GLUE GSM8K > bench/results/memory-study.md
#   MODELS: folder with minilm-l6 and smollm2-135m; GLUE: folder of GLUE; GSM8K: its train file. NATIVELORA: the command (default: nativelora).
set -euo pipefail
models=$1 glue=$2 gsm8k=$3
nativelora=${NATIVELORA:-nativelora}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

config() { mkdir -p "$work/$1" && cat > "$work/$1/config.json"; }
config BERT-base <<'JSON'
{"model_type": "bert", "architectures": ["BertForSequenceClassification"], "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
 "intermediate_size": 3072, "vocab_size": 30522, "max_position_embeddings": 512, "type_vocab_size": 2, "hidden_act": "gelu", "layer_norm_eps": 1e-12,
 "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1, "pad_token_id": 0, "dtype": "float32"}
JSON
config Llama-2-7B <<'JSON'
{"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
 "num_key_value_heads": 32, "intermediate_size": 11008, "vocab_size": 32000, "max_position_embeddings": 4096, "rms_norm_eps": 1e-05, "hidden_act": "silu",
 "tie_word_embeddings": false, "bos_token_id": 1, "eos_token_id": 2, "dtype": "bfloat16"}
JSON
ln -s "$(cd "$models" && pwd)/smollm2-135m" "$work/smollm2-135m"
ln -s "$(cd "$models" && pwd)/minilm-l6" "$work/minilm-l6"
[ -d "$glue" ] && glue=$(cd "$glue" && pwd)
gsm8k=$(cd "$(dirname "$gsm8k")" && pwd)/$(basename "$gsm8k")
cd "$work"

# run COMMAND...: the command as it is typed, and what it says.
run() {
  local shown="${*//$glue/GLUE}"
  printf '\n```\n$ nativelora %s\n' "${shown//$gsm8k/gsm8k.jsonl}"
  NO_COLOR=1 COLUMNS=200 "$nativelora" "$@" 2>&1 | sed -e "s#$glue#GLUE#g; s#$gsm8k#gsm8k.jsonl#g; s#$work/##g" -e 's/[[:space:]]*$//'
  printf '```\n'
}

echo "# What skipped layers save"
echo
echo "Made by \`bench/memory-study.sh\`. All but the last part is planned: no weights are read, nothing is trained, and the same command gives the same numbers."

bert=(--model BERT-base --targets query,value --r 8 --dropout 0.1 --batch-size 16 --max-length 128 --threads 1)
printf '\n## BERT-base, 16 × 128 tokens, fp32, r 8 on query and value\n\nThere are no weights of it here, so no scores of its layers, no mask by the rule of the paper and no suggestion: six of twelve layers, the last and every other one, against all.\n'
run memory "${bert[@]}" --mask 000000111111 --mask 010101010101
run memory "${bert[@]}" --compare all 000000111111
run memory "${bert[@]}" --compare all 010101010101

smol=(--model smollm2-135m --targets q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj --r 8 --weights bf16 --precision bf16 --threads 1)
printf '\n## smollm2-135m, 4 × 256 tokens, bf16, r 8 on all seven modules\n\nScores of its layers are measured on 128 rows of GSM8K, with the prompt and the token of the paper'"'"'s scripts for decoders; gradients on the first 32 of them.\n'
run select "${smol[@]}" --task instruct --instruction-field question --output-field answer --max-length 512 --data "$gsm8k" --strategy cka --ratio 0.5 --samples 128 --bootstrap 0 --batch-size 4 --output scores
run select "${smol[@]}" --task instruct --instruction-field question --output-field answer --max-length 512 --data "$gsm8k" --strategy gradient --ratio 0.5 --samples 32 --batch-size 4 --output gradients
smol+=(--batch-size 4 --max-length 256)
mask=$(grep -o '"mask": *"[01]*"' scores/selection.json | head -1 | grep -o '[01]*' | tail -1)
run memory "${smol[@]}" --compare all "$mask"
run memory "${smol[@]}" --compare all 000000000000000111111111111111
# As much as the paper's mask takes, and as much as the upper half takes.
planned() { "$nativelora" memory "${smol[@]}" --mask "$1" --json | tr -d ' \n' | sed 's/.*"mask":"'"$1"'"//' | grep -o '"total":[0-9]*' | head -1 | grep -o '[0-9]*'; }
for budget in "$(planned "$mask")" "$(planned 000000000000000111111111111111)"; do
  run memory "${smol[@]}" --suggest --selection scores/selection.json --budget-bytes "$budget"
  run memory "${smol[@]}" --suggest --selection gradients/selection.json --budget-bytes "$budget"
done

llama=(--model Llama-2-7B --targets q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj --r 128 --alpha 256 --batch-size 1 --max-length 512 --precision bf16 --threads 1)
printf '\n## Llama-2-7B, 1 × 512 tokens, bf16, r 128 on all seven modules\n\nThe mask is the one that the paper (arXiv 2602.05988) gives for its decoder; there are no weights here, so no scores of layers and no suggestion.\n'
run memory "${llama[@]}" --compare all 11111111111011101000000000000001
run memory "${llama[@]}" --compare all 00000000000000001111111111111111
run memory "${llama[@]}" --compare 11111111111011101000000000000001 00000000000000001111111111111111

printf '\n## The plan against real trainings\n\nTwo steps each. Planned: `planned_bytes` of report.json, a training step and what evaluations take beside it. Allocated: what the device had really allocated.\n\n'
echo "| model | mask | planned before, by select | planned by the training, evaluations included | of it without weights and kernels | allocated by the device | difference |"
echo "| --- | --- | ---: | ---: | ---: | ---: | ---: |"
number() { tr -d ' \n' < "$1" | grep -o "\"$2\":[0-9]*" | head -1 | grep -o '[0-9]*$'; }
against() { # name, mask, arguments of select and train: the plan of select over all rows is that of the training
  local name=$1 mask=$2 out=$work/run-$1-$2; shift 2
  "$nativelora" train "$@" --layers "$mask" --max-steps 2 --output "$out" > "$out.log" 2>&1 || { cat "$out.log" >&2; return 1; }
  "$nativelora" select "$@" --strategy "$mask" --json > "$out.json" 2> "$out.log" || { cat "$out.log" >&2; return 1; }
  local planned allocated weights kernels before
  planned=$(number "$out/report.json" planned_bytes) allocated=$(number "$out/report.json" allocated_by_the_device)
  weights=$(number "$out.json" weights) kernels=$(number "$out.json" kernels) before=$(number "$out.json" total)
  printf '| %s | %s | %s | %s | %s | %s | %s |\n' "$name" "$mask" "$before" "$planned" "$((planned - weights - kernels))" "$allocated" "$((allocated - planned + weights + kernels))"
}
for mask in 111111 000111 101010; do
  against minilm-l6 $mask --model minilm-l6 --threads 1 --task mrpc --data "$glue" --max-rows 256 --targets query,value --batch-size 32
done
for mask in 111111111111111111111111111111 "$(printf '0%.0s' {1..15})$(printf '1%.0s' {1..15})"; do
  against smollm2-135m $mask --model smollm2-135m --weights bf16 --threads 1 --task gsm8k --data "$gsm8k" --max-rows 32 --max-length 256 --targets q_proj,v_proj --batch-size 4
done
printf '\nThe plan before (of `select`) and that of the training agree but for what evaluations take; weights are mapped files or, where they had to be expanded, beside the device'"'"'s count; kernels is the working memory of the threads. The difference of minilm-l6 is its 31,104 biases and norm weights, in fp16 in the file and in fp32 on the device (124,416 bytes): the plan has them among the weights.\n'
