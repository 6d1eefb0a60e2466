using System.Text.Json;
using NativeLora.Data;
using NativeLora.Data.Tokenizers;

namespace NativeLora.Tests.Data;

public class InstructionPromptGoldenTests
{
    [SharedTheory]
    [InlineData("smollm2", "models/smollm2-135m", "<|im_end|>")]
    [InlineData("llama2", "data/tokenizers/llama2.hf", "</s>")]
    [InlineData("mistral-v0.1", "data/tokenizers/mistral01.hf", "</s>")]
    public void Prompts_are_as_the_papers_script_encodes_them(string name, string folder, string eosText)
    {
        var tokenizer = TokenizerLoader.FromFolder(Shared.Path(folder));
        var rows = 0;
        foreach (var line in File.ReadLines(Shared.Path("fixtures", "text", "prompts", name + ".jsonl")))
        {
            using var golden = JsonDocument.Parse(line);
            var row = golden.RootElement;
            var example = InstructionPrompt.Encode(
                tokenizer, eosText, row.GetProperty("question").GetString()!, row.GetProperty("answer").GetString()!, maxLength: 512);
            Assert.Equal(row.GetProperty("pad_id").GetInt32(), tokenizer.TokenId(eosText));
            Assert.Equal(Ints(row, "input_ids"), example.Ids);
            Assert.Equal(Ints(row, "labels"), example.Labels);
            Assert.Equal(row.GetProperty("prompt_labels").GetInt32(), example.PromptLabels);
            Assert.Equal(row.GetProperty("token_index").GetInt32(), example.TokenIndex);
            rows++;
        }
        Assert.Equal(44, rows);
    }

    private static int[] Ints(JsonElement row, string name) => [.. row.GetProperty(name).EnumerateArray().Select(v => v.GetInt32())];
}
