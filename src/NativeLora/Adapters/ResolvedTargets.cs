namespace NativeLora.Adapters;

/// <summary>A module that gets an adapter.</summary>
/// <param name="Module">The module.</param>
/// <param name="Rank">Its rank.</param>
/// <param name="Alpha">Its alpha.</param>
/// <param name="Scaling">alpha/rank, with rsLoRA alpha/√rank.</param>
public sealed record AdaptedModule(ModuleInfo Module, int Rank, double Alpha, double Scaling)
{
    /// <summary>The module's full name.</summary>
    public string Name => Module.Name;
}

/// <summary>What a <see cref="LoraConfig"/> means for one model.</summary>
public sealed record ResolvedTargets
{
    /// <summary>The adapted modules, in the model's order.</summary>
    public required IReadOnlyList<AdaptedModule> Adapted { get; init; }

    /// <summary>Modules trained and saved in full, as PEFT names them: a container stands for all inside of it.</summary>
    public required IReadOnlyList<string> SavedModules { get; init; }

    /// <summary>The modules with parameters that <see cref="SavedModules"/> means, in the model's order.</summary>
    public required IReadOnlyList<ModuleInfo> SavedLeaves { get; init; }

    /// <summary>Modules outside of those saved in full whose bias is trained (<c>bias</c> is not none).</summary>
    public required IReadOnlyList<ModuleInfo> TrainedBiases { get; init; }

    /// <summary>Number of trainable parameters.</summary>
    public required long TrainableCount { get; init; }

    /// <summary>One line each: a target, layer, pattern or exclusion that matches nothing.</summary>
    public required IReadOnlyList<string> Warnings { get; init; }

    /// <summary>The adapter of a module, or null.</summary>
    public AdaptedModule? Find(string module) => Adapted.FirstOrDefault(a => a.Name == module);
}
