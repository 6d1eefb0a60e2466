namespace NativeLora.Hosting;

/// <summary>An adapter of a hosted model, or the model without one; told apart by identity, so that a name that is given again means another one.</summary>
/// <param name="name">What calls name it by; empty for the model itself.</param>
/// <param name="labels">Names of its classes.</param>
/// <param name="lost">A module that neither it nor the model has trained; null: none, it can be used.</param>
/// <param name="bytes">Bytes of its tensors.</param>
internal sealed class HostedAdapter(string name, string[] labels, string? lost, long bytes)
{
    public string Name { get; } = name;

    public string[] Labels { get; } = labels;

    public string? Lost { get; } = lost;

    public long Bytes { get; } = bytes;
}
