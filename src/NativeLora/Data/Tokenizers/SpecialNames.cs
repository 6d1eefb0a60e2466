namespace NativeLora.Data.Tokenizers;

/// <summary>The tokens that a folder's files give a role.</summary>
internal sealed record SpecialNames(string? Pad, string? Bos, string? Eos, string? Unk, string? Cls, string? Sep, string? Mask)
{
    private static readonly string[] Files = ["tokenizer_config.json", "special_tokens_map.json"];

    /// <summary>Reads the roles; what neither file names is null.</summary>
    public static SpecialNames FromFolder(string folder)
    {
        var names = new Dictionary<string, string>();
        foreach (var file in Files.Select(name => Path.Combine(folder, name)).Where(File.Exists))
        {
            JsonField.Read(file, root =>
            {
                foreach (var role in new[] { "pad", "bos", "eos", "unk", "cls", "sep", "mask" })
                {
                    var field = root.Find(role + "_token");
                    if (!field.IsNull)
                        names.TryAdd(role, field.IsObject ? field.Get("content").Text() : field.Text());
                }
                return 0;
            });
        }
        return new SpecialNames(Of("pad"), Of("bos"), Of("eos"), Of("unk"), Of("cls"), Of("sep"), Of("mask"));

        string? Of(string role) => names.GetValueOrDefault(role);
    }
}
