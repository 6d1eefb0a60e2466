using NativeLora.Graphs;
using NativeLora.Training;

namespace NativeLora.Cli.Report;

/// <summary>Where the time of a few steps went: the content of <c>profile.json</c>.</summary>
/// <param name="Device">What ran.</param>
/// <param name="Mask">Layers with adapters.</param>
/// <param name="Steps">Steps that were timed.</param>
/// <param name="Tokens">Tokens of them.</param>
/// <param name="SecondsPerStep">Mean seconds of a step, with its batch, the optimizer and the timing itself.</param>
/// <param name="Nodes">The operations.</param>
/// <param name="NodeSeconds">Mean seconds of each operation in a step.</param>
internal sealed record ProfileFile(string Device, string Mask, int Steps, long Tokens, double SecondsPerStep, NodeList Nodes, IReadOnlyList<double> NodeSeconds)
{
    public const string FileName = "profile.json";

    /// <summary>Seconds of a step that no operation took: batch, optimizer, timing.</summary>
    public double Outside => SecondsPerStep - NodeSeconds.Sum();

    public static ProfileFile Of(string device, string mask, MemoryPlan plan, StepTimes times) => new(
        device, mask, times.Steps, times.Tokens, times.Seconds / times.Steps, NodeList.Of(plan), [.. times.NodeSeconds.Select(s => s / times.Steps)]);

    /// <summary>Removes that of an earlier training, which this one may not make again.</summary>
    public static void Remove(string folder) => File.Delete(Path.Combine(folder, FileName));

    public void Write(string folder) => RunFiles.Write(Path.Combine(folder, FileName), this);

    /// <exception cref="InputException">It is malformed.</exception>
    public static ProfileFile Read(string path)
    {
        var profile = RunFiles.Read<ProfileFile>(path);
        RunFiles.Require(profile.Steps > 0 && profile.Nodes.IsWhole && profile.NodeSeconds.Count == profile.Nodes.Op.Count && profile.NodeSeconds.All(s => s >= 0 && double.IsFinite(s)),
            path, "its lists differ in length or hold negative numbers");
        return profile;
    }
}
