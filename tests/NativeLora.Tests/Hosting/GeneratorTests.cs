using NativeLora.Data.Tokenizers;
using NativeLora.Devices.Cpu;
using NativeLora.Generation;
using NativeLora.Hosting;
using NativeLora.Models;

namespace NativeLora.Tests.Hosting;

/// <summary>Generation for several callers.</summary>
public sealed class GeneratorTests
{
    private static readonly GenerationOptions Short = new() { MaxNewTokens = 6 };

    private static string Folder => Shared.Path("models", "smollm2-135m");

    [SharedFact]
    public async Task Callers_at_the_same_time_get_what_one_generator_gives()
    {
        using var device = new CpuDevice(2);
        using var pretrained = PretrainedModel.Open(Folder, device);
        using var alone = new TextGenerator(pretrained, TokenizerLoader.FromFolder(Folder));
        string[] prompts = ["The capital of France is", "Water boils at", "One, two, three,"];
        var wanted = prompts.Select(p => alone.Generate([p], Short).Results[0].Text).ToArray();
        using var generator = Generator.Open(Folder, new InferenceOptions { Sessions = 2, Threads = 1 });
        Assert.Equal("llama", generator.ModelType);
        var texts = await Task.WhenAll(prompts.Select(async p => (await generator.GenerateAsync(p, Short)).Text));
        Assert.Equal(wanted, texts);
        var pieces = new List<string>();
        await foreach (var piece in generator.StreamAsync(prompts[0], Short))
            pieces.Add(piece);
        Assert.True(pieces.Count > 1);
        Assert.Equal(wanted[0], string.Concat(pieces));

        // Left in the middle, or cancelled, the session is free again.
        await foreach (var piece in generator.StreamAsync(prompts[1], new GenerationOptions { MaxNewTokens = 4000 }))
            break;
        using var stop = new CancellationTokenSource();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(async () =>
        {
            await foreach (var piece in generator.StreamAsync(prompts[1], new GenerationOptions { MaxNewTokens = 4000, IgnoreEos = true }, cancellation: stop.Token))
                await stop.CancelAsync();
        });
        Assert.Equal(wanted[2], (await generator.GenerateAsync(prompts[2], Short)).Text);
        Assert.Contains("there are none", (await Assert.ThrowsAsync<InputException>(() => generator.GenerateAsync("a", Short, "x"))).Message);
    }

    /// <summary>The turns are written as the model's own template writes them.</summary>
    [SharedFact]
    public void A_conversation_is_written_as_the_template_does()
    {
        var tokenizer = TokenizerLoader.FromFolder(Folder);
        var template = ChatTemplate.FromFolder(Folder);
        Assert.Equal("chatml", template.Name);
        var ids = template.ConversationIds(tokenizer, [new("Hello", "Hi there."), new("And <|im_end|> now?")], "Be brief.");
        Assert.Equal(
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\nHi there.<|im_end|>\n"
            + "<|im_start|>user\nAnd <|im_end|> now?<|im_end|>\n<|im_start|>assistant\n", tokenizer.Decode(ids));
        // What a user writes is no special token: of the seven that the text shows, one is the user's.
        var end = tokenizer.TokenId("<|im_end|>");
        Assert.Equal(4, ids.Count(i => i == end));
        Assert.Equal(template.PromptIds(tokenizer, new("Hello", "", 1)), template.ConversationIds(tokenizer, [new("Hello")]));
        Assert.Throws<InputException>(() => template.ConversationIds(tokenizer, []));
        Assert.Throws<InputException>(() => template.ConversationIds(tokenizer, [new("a"), new("b")]));
        Assert.Throws<InputException>(() => template.ConversationIds(tokenizer, [new("a", "b")]));
    }

    [SharedFact]
    public void An_encoder_does_not_generate() =>
        Assert.Contains("encoder", Assert.Throws<InputException>(() => Generator.Open(Shared.Path("models", "minilm-l6"))).Message);
}
