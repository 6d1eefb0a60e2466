using System.Globalization;
using NativeLora.Checkpoints;

namespace NativeLora.Selection;

/// <summary>The two text files that the paper's scripts leave in <c>layer_selection/</c>.</summary>
public static class SelectionFiles
{
    /// <summary>
    /// Writes <c>layer_selection/cka_layer_list_SUFFIX.txt</c> (<c>value|l,l+1</c> a line) and
    /// <c>layer_selection/layers_to_finetune_ohe_SUFFIX.txt</c> (the mask, without an end of line).
    /// </summary>
    /// <param name="folder">Output folder; <c>layer_selection</c> is created in it.</param>
    /// <param name="suffix">What the paper's scripts put there: model_task for encoders, model_task_samples for decoders, model_samples for LLaVA.</param>
    /// <param name="cka">CKA of each layer; an undefined one is written as 0.0, as the paper's function gives it.</param>
    /// <param name="selection">The choice.</param>
    /// <returns>The paths of both files.</returns>
    /// <exception cref="InputException">The suffix is no part of a file name, or the counts differ.</exception>
    /// <exception cref="RunException">A file cannot be written.</exception>
    public static (string CkaList, string Mask) Write(string folder, string suffix, IReadOnlyList<double?> cka, LayerSelection selection)
    {
        ArgumentNullException.ThrowIfNull(folder);
        ArgumentNullException.ThrowIfNull(suffix);
        ArgumentNullException.ThrowIfNull(cka);
        ArgumentNullException.ThrowIfNull(selection);
        if (suffix.Length == 0 || suffix.AsSpan().IndexOfAny('/', '\\', '\0') >= 0)
            throw new InputException($"\"{suffix}\" cannot be part of a file name: give the model's name and the task's without slashes");
        if (cka.Count != selection.Layers)
            throw new InputException($"{cka.Count} CKA values for a selection among {selection.Layers} layers");
        var at = Path.Combine(folder, "layer_selection");
        var list = Path.Combine(at, $"cka_layer_list_{suffix}.txt");
        var mask = Path.Combine(at, $"layers_to_finetune_ohe_{suffix}.txt");
        AtomicFile.WriteAllText(list, string.Concat(cka.Select((value, l) => $"{PythonFloat(value ?? 0)}|{l},{l + 1}\n")));
        AtomicFile.WriteAllText(mask, selection.Mask);
        return (list, mask);
    }

    /// <summary>A number as Python prints it: the shortest text that reads back, with ".0" on whole numbers.</summary>
    internal static string PythonFloat(double value)
    {
        var text = value.ToString("R", CultureInfo.InvariantCulture).Replace('E', 'e');
        return text.AsSpan().IndexOfAny(".en") < 0 ? text + ".0" : text;
    }
}
