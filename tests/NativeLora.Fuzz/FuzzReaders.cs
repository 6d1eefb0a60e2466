namespace NativeLora.Fuzz;

/// <summary>Everything that reads bytes from outside.</summary>
public static class FuzzReaders
{
    /// <summary>The readers.</summary>
    public static IReadOnlyList<FuzzReader> All { get; } =
        [.. CheckpointReaders.All, .. AdapterReaders.All, .. TokenizerReaders.All, .. DataReaders.All, .. TrainingReaders.All, .. HubReaders.All, .. PictureReaders.All, .. OptionReaders.All];
}
