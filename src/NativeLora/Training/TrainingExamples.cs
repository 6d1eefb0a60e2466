using NativeLora.Data;
using NativeLora.Models;

namespace NativeLora.Training;

/// <summary>What a training needs to know of its examples.</summary>
internal static class TrainingExamples
{
    /// <summary>Labels of a language model's example that count in the loss: those after the first token, shifted, not -100.</summary>
    public static int LabelCount(EncodedExample example) => example.Labels is { } labels
        ? labels.Length - 1 - labels.AsSpan(1).Count(InstructionPrompt.IgnoredLabel)
        : 0;

    /// <summary>For each example, what it adds to the number that the loss is divided by.</summary>
    /// <exception cref="InputException">An example is not labelled, or longer than allowed.</exception>
    public static int[] Check(IReadOnlyList<EncodedExample> examples, ModelHead head, int labels, int maxLength)
    {
        var counts = new int[examples.Count];
        for (var i = 0; i < counts.Length; i++)
        {
            var example = examples[i];
            if (example.Length > maxLength)
                throw new InputException($"training example {i + 1} has {example.Length} tokens, more than the {maxLength} allowed; cut the texts when they are encoded");
            counts[i] = head == ModelHead.LanguageModel ? Causal(example, i) : Classified(example, i, labels);
        }
        return counts;
    }

    private static int Causal(EncodedExample example, int i) => example.Labels is not null
        ? LabelCount(example)
        : throw new InputException($"training example {i + 1} has no labels for its tokens; a language model learns from instructions or texts, not from classes");

    private static int Classified(EncodedExample example, int i, int labels)
    {
        if (labels == 1 && !float.IsFinite(example.Target))
            throw new InputException($"training example {i + 1} has no score; leave it out, or open the model with the labels of the task");
        if (labels > 1 && (uint)example.ClassLabel >= (uint)labels)
            throw new InputException(example.ClassLabel == InstructionPrompt.IgnoredLabel
                ? $"training example {i + 1} has no label; leave it out"
                : $"training example {i + 1} has label {example.ClassLabel}, but the model has classes 0 to {labels - 1}; open it with the labels of the task");
        return 1;
    }
}
