using NativeLora.Cli.Verify;
using NativeLora.Tests;

namespace NativeLora.Cuda.Tests;

/// <summary>Whole models on CUDA against the reference stack, with the tolerances of the CPU: what <c>nativelora verify --device cuda</c> does.</summary>
[Collection(Cuda.Collection)]
public class GoldenTests
{
    [GoldenTheory]
    [InlineData("bert-cls", "lora-selected")]
    [InlineData("bert-cls", "dora-selected")]
    [InlineData("roberta-cls", "lora-selected")]
    [InlineData("llama-gqa", "lora-selected")]
    [InlineData("llama-gqa", "dora-selected")]
    [InlineData("mistral", "lora-selected")]
    [InlineData("gemma", "lora-selected")]
    [InlineData("deberta-v3-cls", "lora-selected")]
    [InlineData("deberta-v3-cls", "dora-selected")]
    public void EveryQuantityIsWithinItsTolerance(string name, string adapter)
    {
        using var output = new StringWriter();
        new CaseVerifier(Shared.Path("fixtures", "models", name), Cuda.Device, new VerifyReport(output), variant => variant == adapter).Run();
        Check(output, [$"{name} plain logits ", $"{name} selection features[", $"{name} {adapter} gradients[", $"{name} {adapter} losses[", $"{name} {adapter} final_weights["]);
    }

    [GoldenTheory]
    [InlineData("bert-cls", "lora-selected")]
    [InlineData("llama-gqa", "lora-selected")]
    public void Bf16IsAsCloseToTheGoldensAsItIsOnTheCpu(string name, string adapter)
    {
        using var output = new StringWriter();
        new BrainVerifier(Shared.Path("fixtures", "models", name), Cuda.Device, new VerifyReport(output), variant => variant == adapter).Run();
        Check(output, [$"{name} bf16 logits ", $"{name} bf16:{adapter} logits ", $"{name} bf16:{adapter} losses["]);
    }

    private static void Check(StringWriter output, string[] quantities)
    {
        var lines = output.ToString().Split('\n', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries);
        var failed = lines.Where(l => !l.EndsWith(" pass", StringComparison.Ordinal)).ToList();
        Assert.True(failed.Count == 0, string.Join('\n', failed));
        foreach (var quantity in quantities)
            Assert.Contains(lines, l => l.StartsWith(quantity, StringComparison.Ordinal));
    }
}

/// <summary>A theory that needs the reference files and the stand-in, or a GPU; without them it is skipped and says so.</summary>
[AttributeUsage(AttributeTargets.Method)]
public sealed class GoldenTheoryAttribute : TheoryAttribute
{
    public GoldenTheoryAttribute() => Skip = new SharedTheoryAttribute().Skip ?? Cuda.Missing;
}
