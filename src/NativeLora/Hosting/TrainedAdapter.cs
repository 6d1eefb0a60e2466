using NativeLora.Adapters;

namespace NativeLora.Hosting;

/// <summary>An adapter in memory, with the names of its classes.</summary>
/// <param name="Config">Its settings, as PEFT completes them.</param>
/// <param name="Weights">Its tensors.</param>
/// <param name="Labels">Names of its classes; null where there are none.</param>
internal sealed record TrainedAdapter(LoraConfig Config, AdapterWeights Weights, IReadOnlyList<string>? Labels)
{
    /// <summary>An adapter that was trained here, or else of its folder.</summary>
    /// <exception cref="InputException">A file is missing or malformed, or the adapter does not fit the model.</exception>
    public static LoadedAdapter Load(AdapterSource source, ModelModules model) => source.Trained is not { } trained
        ? AdapterFile.Load(source.Folder, model)
        : AdapterFile.Of(trained.Config, trained.Weights, model, $"adapter \"{source.Name}\"");

    /// <summary>Writes it as PEFT's folder.</summary>
    /// <exception cref="RunException">A file cannot be written.</exception>
    public void Save(string folder)
    {
        if (Labels is not null)
            LabelsFile.Save(folder, Labels);
        AdapterFile.Write(folder, Config, Weights);
    }
}
